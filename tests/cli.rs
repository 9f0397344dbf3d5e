//! What the commands print, as transcripts in `tests/cmd`.
//!
//! `TRYCMD=overwrite cargo test --test cli` writes them anew.

use std::process::Command;

/// Set in the run that has nothing else in its environment.
const CLEAN: &str = "LEADLOOP_TEST_CLEAN";

#[test]
fn commands_print_what_their_transcripts_say() {
    if std::env::var_os(CLEAN).is_none() {
        // Settings of this machine must not change what is printed, so the test calls itself with
        // an empty environment.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "commands_print_what_their_transcripts_say", "--nocapture"]);
        let overwrite = std::env::var_os("TRYCMD").map(|mode| ("TRYCMD", mode));
        again.env_clear().env(CLEAN, "1").envs(overwrite);
        assert!(again.status().unwrap().success());
        return;
    }
    let cases = trycmd::TestCases::new();
    cases.default_bin_path(env!("CARGO_BIN_EXE_leadloop"));
    cases
        .register_bin("leadloop", trycmd::schema::Bin::Path(env!("CARGO_BIN_EXE_leadloop").into()));
    cases.case("tests/cmd/*.trycmd");
}
