//! A PostgreSQL of the benchmark's own on the disk under measurement, with flushes, reached by a
//! socket; it ends with this process, however that ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::process::{last_lines, said};

/// Makes a cluster in the directory `$1`, with its socket in `$2`, by the programs in `$3`, and
/// serves until the standard input ends. The server refuses to run as root, so root runs it as
/// nobody.
const SERVE: &str = r#"
set -eu
dir=$1
socket=$2
PATH=$3:$PATH
as=
if [ "$(id -u)" = 0 ]; then
    chown 65534:65534 "$dir" "$socket"
    as='setpriv --reuid=65534 --regid=65534 --clear-groups'
fi
cd "$dir"
$as initdb -D "$dir/data" -U postgres --auth=trust >"$dir/log" 2>&1
$as postgres -D "$dir/data" -k "$socket" -c listen_addresses= -c max_connections=100 \
    -c shared_buffers=512MB -c max_wal_size=8GB >>"$dir/log" 2>&1 &
pid=$!
tries=600
until tail -n 1 "$dir/data/postmaster.pid" 2>/dev/null | grep -q ready; do
    tries=$((tries - 1))
    if [ $tries = 0 ]; then break; fi
    sleep 0.1
done
echo started
exec >/dev/null
cat
kill -QUIT $pid
wait $pid || true
"#;

/// Which programs are needed; a folder that has some only will not do.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "psql", "pgbench"];

/// A server that runs until this is dropped.
pub(crate) struct Cluster {
    server: Child,
    socket: TempDir,
    programs: PathBuf,
    folder: TempDir,
}

impl Cluster {
    /// Starts one.
    pub(crate) fn start(disk: &Disk) -> anyhow::Result<Self> {
        let programs = programs().context("no PostgreSQL: apt install postgresql")?;
        // The name of a socket is short; that of a target directory need not be.
        let (folder, socket) = (disk.folder()?, tempfile::tempdir()?);
        let mut server = Command::new("sh")
            .args(["-c", SERVE, "sh"])
            .args([folder.path(), socket.path(), &programs])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let said = server.stdout.take().context("its output is piped")?;
        let cluster = Self { server, socket, programs, folder };
        BufReader::new(said).read_line(&mut String::new())?;
        let log = cluster.folder.path().join("log");
        cluster.sql("postgres", "SELECT true").with_context(|| last_lines(&log))?;
        Ok(cluster)
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.socket.path().to_string_lossy().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }

    /// Runs statements, each in a transaction of its own.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let mut psql = self.program("psql");
        psql.args(["-v", "ON_ERROR_STOP=1", "-XqAt", "-d", database]);
        for statement in statements.split_inclusive(';') {
            psql.args(["-c", statement]);
        }
        said(&mut psql)
    }

    /// Runs a script of pgbench for so long, and answers how many transactions a second it did.
    pub(crate) fn pgbench(
        &self,
        database: &str,
        script: &Path,
        clients: usize,
        seconds: u64,
    ) -> anyhow::Result<f64> {
        let mut pgbench = self.program("pgbench");
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        pgbench.args(["-n", "-M", "prepared", "-c", &clients, "-j", &clients, "-T", &seconds]);
        let said = said(pgbench.arg("-f").arg(script).arg(database))?;
        let per_s = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
        Ok(per_s.context("pgbench does not tell its rate")?.parse()?)
    }

    /// Which version it is.
    pub(crate) fn version(&self) -> anyhow::Result<String> {
        let version = self.sql("postgres", "SHOW server_version")?;
        Ok(version.split(' ').next().unwrap_or_default().to_owned())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.arg("-h").arg(self.socket.path()).args(["-U", "postgres"]);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

/// Where the programs of PostgreSQL are: on the path, or where Debian puts them.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|it| it.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    let has_all = |folder: &PathBuf| PROGRAMS.iter().all(|name| folder.join(name).exists());
    folders.into_iter().find(has_all)
}
