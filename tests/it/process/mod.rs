//! The program as its users have it: a process with a command line, an environment, files and
//! signals. What the server answers in detail is tested by the modules beside this one.

mod command;
mod journal;
mod kill;
mod program;
mod settings;
mod start;
mod stop;
