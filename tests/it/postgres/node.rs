//! A server of PostgreSQL that a test starts, stops, kills, copies and promotes.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor as _};

use super::cluster::programs;
use crate::process::program::within;

/// Does what its standard input says, a line each, with the server in the directory `$1` by the
/// programs in `$2`. At the end of the input, which comes when the test is gone, however that
/// ended, nothing is left behind. The server refuses to run as root, so root runs it as nobody.
///
/// Nothing here cuts the power of a machine, so nothing is flushed: what a process has written
/// outlives it.
const KEEP: &str = r#"
dir=$1
PATH=$2:$PATH
as=
if [ "$(id -u)" = 0 ]; then
    chown 65534:65534 "$dir"
    as='setpriv --reuid=65534 --regid=65534 --clear-groups'
fi
cd "$dir"
while read -r command from; do
    case $command in
    make) $as initdb -D "$dir/data" -U postgres --auth=trust --no-sync ;;
    copy)
        rm -rf "$dir/data"
        $as pg_basebackup -D "$dir/data" -h "$from" -U postgres -R -c fast --no-sync
        echo "synchronous_standby_names = ''" >>"$dir/data/postgresql.auto.conf"
        ;;
    start)
        $as postgres -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off \
            -c max_connections=100 -c shared_buffers=32MB -c autovacuum=off &
        server=$!
        ;;
    stop) kill -INT $server; wait $server ;;
    kill)
        kill -STOP $server
        kill -KILL $(ps -o pid= --ppid $server) $server
        wait $server
        ;;
    freeze) kill -STOP $(ps -o pid=,args= --ppid $server | awk '/walsender/ { print $1 }') ;;
    esac >>"$dir/log" 2>&1
    echo done
done
kill -QUIT $server
wait $server
rm -rf "$dir"
"#;

/// A server, running or not.
pub struct Node {
    folder: PathBuf,
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Node {
    /// A place for a server.
    fn place() -> Self {
        let folder = tempfile::Builder::new().prefix("leadloop-pg-").tempdir().unwrap().keep();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEP, "sh"])
            .args([&folder, &programs()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = keeper.stdin.take();
        let answers = BufReader::new(keeper.stdout.take().unwrap());
        Self { folder, keeper, orders, answers }
    }

    /// A new server.
    pub async fn start() -> Self {
        let mut node = Self::place();
        node.tell("make");
        node.go_on().await;
        node
    }

    /// A standby of another server.
    pub async fn standby_of(primary: &Self) -> Self {
        let mut node = Self::place();
        node.follow(primary).await;
        node
    }

    /// Throws away what there was and starts as a standby of another server.
    pub async fn follow(&mut self, primary: &Self) {
        self.tell(&format!("copy {}", primary.folder.display()));
        self.go_on().await;
    }

    /// Starts what was stopped.
    pub async fn go_on(&mut self) {
        self.tell("start");
        self.until("SELECT true").await;
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.tell("stop");
    }

    /// Ends all of its processes without a warning.
    pub fn kill(&mut self) {
        self.tell("kill");
    }

    /// Keeps it from sending anything to its standby.
    pub fn freeze_sender(&mut self) {
        self.tell("freeze");
    }

    /// Makes a standby the primary.
    pub async fn promote(&self) {
        self.until("SELECT pg_promote()").await;
    }

    /// Lets no commit return before its standby has it, and waits for the standby to be there.
    pub async fn wait_for_standby(&self, is_synchronous: bool) {
        let mut state = "async";
        if is_synchronous {
            state = "sync";
            self.run("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
            self.run("SELECT pg_reload_conf()").await.unwrap();
        }
        let state = format!(
            "SELECT count(*) = 1 FROM pg_stat_replication \
             WHERE state = 'streaming' AND sync_state = '{state}'"
        );
        self.until(&state).await;
    }

    /// The directory of its socket, as it stands in a URL.
    pub fn host(&self) -> String {
        self.folder.to_str().unwrap().replace('/', "%2F")
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        url(&[self])
    }

    fn tell(&mut self, order: &str) {
        tokio::task::block_in_place(|| {
            let orders = self.orders.as_mut().unwrap();
            writeln!(orders, "{order}").unwrap();
            let mut answer = String::new();
            self.answers.read_line(&mut answer).unwrap();
            assert_eq!(answer, "done\n", "{order}");
        });
    }

    async fn run(&self, statement: &str) -> Result<Option<bool>, sqlx::Error> {
        let options: PgConnectOptions = self.url().parse()?;
        let mut connection = PgConnection::connect_with(&options).await?;
        let statement = AssertSqlSafe(statement.to_owned());
        let row = connection.fetch_one(sqlx::query(statement)).await.ok();
        connection.close().await?;
        Ok(row.and_then(|row| sqlx::Row::try_get(&row, 0).ok()))
    }

    /// Waits until a question is answered with yes.
    async fn until(&self, question: &str) {
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(20));
        let asking = async {
            while !matches!(self.run(question).await, Ok(Some(true))) {
                interval.tick().await;
            }
        };
        within(asking).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.keeper.wait().unwrap();
    }
}

/// The URL of one database on some servers.
pub fn url(nodes: &[&Node]) -> String {
    let hosts: Vec<String> = nodes.iter().map(|node| node.host()).collect();
    format!("postgres://postgres@{}/postgres", hosts.join(","))
}
