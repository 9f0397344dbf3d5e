//! leadloop: Meta Lead Ads in, Conversions API events out.
pub mod clock;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod http;
pub mod limits;
pub mod meta;
pub mod store;
pub mod telemetry;
