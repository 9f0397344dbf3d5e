//! The program on PostgreSQL, when something is killed, stopped or handed over under load.
//!
//! What a single store promises is tested beside the store; here it is processes: two instances on
//! one database, a primary with a standby, and a database that is away for a while.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod away;
#[expect(dead_code, reason = "the tests of the store use more of it")]
#[path = "../../../src/store/postgres/tests/cluster.rs"]
mod cluster;
mod failover;
mod node;
mod pair;

/// How often something is to happen: what the variable says, or `usually`.
fn times(variable: &str, usually: usize) -> usize {
    let wanted = std::env::var_os(variable);
    wanted.map_or(usually, |wanted| wanted.to_str().unwrap().parse().unwrap())
}
