# Shows the recipes.
default:
    @just --list

# Runs exactly what CI runs.
check:
    .ci/run

# Runs the tests.
test *arguments:
    cargo test --locked {{ arguments }}

# Runs every proof of docs/reliability.md the long way, or those whose name has a word in it.
prove *word:
    tests/prove {{ word }}

# Measures everything of docs/performance.md, or what is named: `just bench --only ingest`.
bench *arguments:
    cargo bench --locked --bench performance -- {{ arguments }}

# Counts the instructions of a delivery and a look-up; with `--write`, writes them down.
count *arguments:
    cargo bench --locked --bench instructions -- {{ arguments }}

# Checks layers, sizes, words and links.
tidy:
    cargo test --locked --test tidy

# Formats the code.
fmt:
    cargo fmt

# Checks the code as strictly as CI does.
lint:
    cargo clippy --all-targets --locked -- -D warnings

# Builds the documentation of the code, private items included.
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --locked

# Checks the licences and the origin of dependencies.
deny:
    cargo deny check bans licenses sources

# Checks dependencies for known vulnerabilities; downloads the list of them.
advisories:
    cargo deny check advisories
