//! The program: everything is in the library.

use leadloop::cli::exit::Exit;

fn main() -> Exit {
    leadloop::cli::run()
}
