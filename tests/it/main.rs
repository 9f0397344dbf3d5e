//! The program from outside: through its HTTP door, its command line and its file, with the
//! stand-in for Meta as the world around it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alarms;
mod backfill;
mod backup;
mod browser;
mod delivery;
mod door;
mod graph;
mod hooks;
mod letters;
mod look_up;
mod matching;
mod postgres;
mod process;
mod removal;
mod security;
mod stage_updates;
mod support;
mod verdicts;
mod webhook;
