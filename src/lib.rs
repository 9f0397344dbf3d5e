//! leadloop: Meta Lead Ads in, Conversions API events out.
//!
//! Meta's webhook tells of a lead; it is stored, answered, and told to the Conversions API as a raw
//! lead. Later the CRM reports the stages that the lead reaches; each is matched with the lead, its
//! time is judged, and it is delivered in order, with every attempt on record.
//!
//! The modules in the order in which they are best read, each resting on those before it:
//!
//! - [`limits`]: every bound, [`domain`]: the rules, pure,
//! - [`meta`]: Meta's wire formats, [`mapping`]: those of CRMs, [`config`]: settings, [`clock`] and
//!   [`client`]: the world,
//! - [`store`]: the use cases that are transactions, in memory and in one file,
//! - [`delivery`]: from the queues to Meta, [`reader`]: leads from the Graph API, [`alarm`]: to
//!   whoever has to know, [`http`]: the door, [`telemetry`]: logs and metrics,
//! - [`sandbox`]: the stand-in for Meta, [`bench`](mod@bench): load on a server, [`app`]: all of it
//!   put together, [`cli`]: the commands.

pub mod alarm;
pub mod app;
pub mod bench;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod domain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
pub mod limits;
pub mod mapping;
pub mod meta;
pub mod reader;
pub mod sandbox;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod telemetry;
