//! leadloop: Meta Lead Ads in, Conversions API events out.
pub mod clock;
pub mod domain;
pub mod limits;
pub mod store;
