//! The pure core: leads, events, and the rules of time.
//!
//! Nothing here does I/O, awaits, reads a clock or knows a wire format; what depends on time takes
//! the time as an argument. Read in this order: [`time`], [`ids`], [`stage`], [`customer`],
//! [`routing`], [`lead`], [`event`], [`rules`],
//! [`intake`], [`backoff`], [`alarm`].

pub mod alarm;
pub mod attempt;
pub mod backoff;
pub mod customer;
pub mod event;
pub mod ids;
pub mod intake;
pub mod lead;
pub mod routing;
pub mod rules;
pub mod stage;
pub mod time;
