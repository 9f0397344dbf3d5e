//! The pure core: leads, events, and the rules of time.
//!
//! Nothing here does I/O, awaits, reads a clock or knows a wire format; what depends on time takes
//! the time as an argument. Read in this order: [`time`], [`ids`], [`stage`], [`customer`],
//! [`lead`], [`event`], [`stage_update`],
//! [`matching`],
//! [`funnel`], [`routing`], [`rules`], [`intake`], [`backoff`], [`mark`],
//! [`alarm`].

pub mod alarm;
pub mod attempt;
pub mod backoff;
pub mod customer;
pub mod event;
pub mod funnel;
pub mod ids;
pub mod intake;
pub mod lead;
pub mod mark;
pub mod matching;
pub mod routing;
pub mod rules;
pub mod stage;
pub mod stage_update;
pub mod time;
