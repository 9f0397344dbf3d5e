//! Meta's wire formats, and nothing else of Meta's.
//!
//! What comes in is turned into domain values at once, and what goes out is written from them, so
//! no other module knows a field name of Meta's. Nothing here does I/O.

pub mod conversions;
pub mod errors;
pub mod graph;
pub mod signature;
pub mod usage;
pub mod webhook;
mod wire_id;
