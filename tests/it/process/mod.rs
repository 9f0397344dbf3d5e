//! The program as its users have it: a process with a command line, an environment, files and
//! signals. What the server answers in detail is tested by the modules beside this one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod backup;
mod bench;
mod canary;
mod command;
mod full;
mod import;
pub mod journal;
mod kill;
pub mod load;
pub mod program;
mod settings;
mod start;
mod stop;
mod stuck;
