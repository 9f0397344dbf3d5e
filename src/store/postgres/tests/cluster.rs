//! A PostgreSQL of the tests' own: a private cluster in a temporary directory, reached by a socket
//! in it, that ends with the process that started it, however that ends.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor as _};

/// Makes a cluster in the directory `$1` with the programs in `$2`, serves until the standard input
/// ends, which it does when whoever started this is gone, and leaves nothing behind. With a port in
/// `$3` it takes encrypted connections on it too, as `localhost`, and asks for a password. The
/// server refuses to run as root, so root runs it as nobody.
const SERVE: &str = r#"
set -eu
dir=$1
PATH=$2:$PATH
port=$3
as=
if [ "$(id -u)" = 0 ]; then
    chown 65534:65534 "$dir"
    as='setpriv --reuid=65534 --regid=65534 --clear-groups'
fi
cd "$dir"
$as initdb -D "$dir/data" -U postgres --auth=trust --no-sync >"$dir/log" 2>&1
encryption='-c listen_addresses='
if [ -n "$port" ]; then
    for name in ca other-ca; do
        $as openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -subj "/CN=$name" -keyout $name.key -out $name.crt >>"$dir/log" 2>&1
    done
    $as openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj /CN=localhost -keyout server.key -out server.csr >>"$dir/log" 2>&1
    echo subjectAltName=DNS:localhost >names
    $as openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
        -extfile names -out server.crt >>"$dir/log" 2>&1
    echo 'local all all trust
hostssl all all all scram-sha-256' >"$dir/data/pg_hba.conf"
    encryption="-c listen_addresses=localhost -c port=$port -c ssl=on
        -c ssl_cert_file=$dir/server.crt -c ssl_key_file=$dir/server.key"
fi
# shellcheck disable=SC2086 # these are words
$as postgres -D "$dir/data" -k "$dir" $encryption -c max_connections=300 \
    -c fsync=off -c shared_buffers=64MB -c autovacuum=off >>"$dir/log" 2>&1 &
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
rm -rf "$dir"
"#;

/// A server that was started.
pub struct Cluster {
    /// Where its socket is, and with encryption the certificates.
    pub folder: PathBuf,
    /// Its standard input is what keeps the server alive.
    _server: Child,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Where the programs of PostgreSQL are: on the path, or where Debian puts them.
pub fn programs() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|it| it.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    let has_server = |folder: &PathBuf| folder.join("initdb").exists();
    folders
        .into_iter()
        .find(has_server)
        .expect("the tests need PostgreSQL 15 or newer; on Debian: apt-get install postgresql")
}

impl Cluster {
    /// Starts one that is reached by its socket and, on a port, by encrypted connections.
    pub fn start(port: Option<u16>) -> Self {
        let folder = tempfile::Builder::new().prefix("leadloop-pg-").tempdir().unwrap().keep();
        let mut server = Command::new("sh")
            .args(["-c", SERVE, "sh"])
            .args([&folder, &programs()])
            .arg(port.map_or_else(String::new, |port| port.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(is_ready(&folder), "PostgreSQL did not start; see {}/log", folder.display());
        Self { folder, _server: server }
    }
}

impl Cluster {
    /// The URL of a database by the socket.
    pub fn url(&self, database: &str) -> String {
        let socket = self.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }
}

/// Whether the server takes connections: it says so in the last line of its lock file.
fn is_ready(folder: &Path) -> bool {
    let lock = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    lock.lines().last().is_some_and(|state| state.trim() == "ready")
}

/// An empty database of its own.
pub struct TestDatabase {
    name: String,
}

impl TestDatabase {
    /// Makes one.
    pub async fn new() -> Self {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("leadloop_{number}");
        run(&format!("CREATE DATABASE {name}")).await;
        Self { name }
    }

    /// Its URL.
    pub fn url(&self) -> SecretString {
        url_of(&self.name).into()
    }

    /// Runs a statement in it.
    pub async fn run(&self, statement: &str) {
        run_in(&self.name, statement).await;
    }

    /// Removes it, whoever is connected.
    pub async fn end(self) {
        run(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

fn url_of(database: &str) -> String {
    CLUSTER.get_or_init(|| Cluster::start(None)).url(database)
}

async fn run(statement: &str) {
    run_in("postgres", statement).await;
}

async fn run_in(database: &str, statement: &str) {
    run_at(&url_of(database), statement).await;
}

/// Runs a statement on a database.
pub async fn run_at(url: &str, statement: &str) {
    let options: PgConnectOptions = url.parse().unwrap();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}
