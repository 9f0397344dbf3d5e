//! The connection is cut at every round trip of every method: right before a request reaches the
//! server, or right after, so that nobody hears what became of it; or it stays, and falls silent.
//! What the method does is then done or not, and never half; whoever was told that it failed may
//! ask again; and where the store tries again by itself, it is done.
//!
//! `cargo test --lib postgres::tests::cuts -- --nocapture` tells how many cuts that were.

mod scene;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgPool, Postgres};
use sqlx::{AssertSqlSafe, Executor as _, Row as _, Transaction};
use tokio::sync::Mutex;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits::{DB_ANSWER_TIMEOUT, DB_CONNECT_TIMEOUT, DB_TRIES_MAX};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::error::Failure;
use crate::store::postgres::session::Faults;
use crate::store::postgres::tests::OWNER;
use crate::store::postgres::tests::cluster::TestDatabase;
use crate::store::postgres::tests::cuts::scene::Scene;
use crate::store::postgres::tests::proxy::{Cut, Proxy};
use crate::store::{Purpose, StoreError};

/// Methods that go on after something was made durable: they work in parts, each whole by
/// itself, or look once more.
const IN_PARTS: [&str; 4] = ["next_batch", "route_held", "expire_stranded", "remove_old"];
/// The one of them that may be found with a part done: what is old in quarantine goes first.
const FIRST_PART_SEEN: &str = "remove_old";
/// The one that is a single statement without a transaction around it.
const COMMITS_ITSELF: &str = "hold";
/// Methods that do a little more each time, and so once more if nobody heard that they had done it.
const COUNTING: [&str; 2] = ["raise_alarm", "begin_alarm_try"];
/// The one at which connections are also cut while they are made, which is the same for all.
const CONNECTING: &str = "probe";
/// No call takes as long.
const STUCK: Duration = Duration::from_mins(1);

/// How the store under test differs from any other.
#[derive(Clone, Copy)]
struct Manner {
    /// How often a transaction is tried.
    tries_max: u32,
    /// Whether what was done so far is committed before each statement: the control.
    commits_early: bool,
}

/// It gives up at once, so that whoever called sees the cut.
const IMPATIENT: Manner = Manner { tries_max: 1, commits_early: false };
const PATIENT: Manner = Manner { tries_max: DB_TRIES_MAX, commits_early: false };
const HASTY: Manner = Manner { tries_max: 1, commits_early: true };

#[async_trait]
impl Faults for Manner {
    /// One of each is all that a call needs, and it makes the same round trips each time.
    fn connections(&self) -> [u32; 2] {
        [1; 2]
    }

    fn tries_max(&self) -> u32 {
        self.tries_max
    }

    async fn strike(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
    ) -> Result<(), Failure> {
        if self.commits_early {
            transaction.execute("COMMIT AND CHAIN").await?;
        }
        Ok(())
    }
}

/// All rows of all tables: the table, a number if it is numbered, and the rest but for what changes
/// with time by itself.
type Rows<Number> = BTreeSet<(String, Option<Number>, String)>;

/// All rows, whatever numbers were given out.
type Contents = Rows<usize>;

fn numbered_in_order(rows: Rows<i64>) -> Contents {
    let numbers: BTreeSet<i64> = rows.iter().filter_map(|(_, number, _)| *number).collect();
    let place = |number: i64| numbers.range(..number).count();
    rows.into_iter().map(|(table, number, row)| (table, number.map(place), row)).collect()
}

/// A store with a proxy before its database, which can be set back to where it began.
struct Bench {
    database: TestDatabase,
    /// Past the proxy.
    direct: PgPool,
    proxy: Proxy,
    store: PostgresStore,
    scene: Scene,
    is_impatient: bool,
    /// Reads everything.
    read: String,
    /// What there is at the start of each call.
    kept: Rows<i64>,
    start: Contents,
}

impl Bench {
    async fn new(manner: Manner) -> Self {
        let database = TestDatabase::new().await;
        let builder = PostgresStore::open(&database.url(), Purpose::Live, OWNER).await.unwrap();
        let scene = Scene::set_up(&builder).await;
        let direct = builder.database.pool.clone();
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' \
             AND tablename NOT IN ('_sqlx_migrations', 'migration_lock', 'instances')",
        )
        .fetch_all(&direct)
        .await
        .unwrap();
        let keep: Vec<String> = tables
            .iter()
            .map(|table| format!("CREATE TABLE kept.{table} AS TABLE {table};"))
            .collect();
        let keep = format!("CREATE SCHEMA kept;{}", keep.concat());
        let rows: Vec<String> = tables
            .iter()
            .map(|table| {
                format!("SELECT '{table}' AS name, to_jsonb(it) AS row FROM {table} AS it")
            })
            .collect();
        let read = format!(
            "SELECT name, (row->>'seq')::int8, (row - '{{seq,epoch,until}}'::text[])::text \
             FROM ({}) AS rows",
            rows.join(" UNION ALL ")
        );
        let proxy = Proxy::start(&database.url());
        let (url, faults) = (proxy.url(), Arc::new(manner));
        let store = PostgresStore::open_with(&url, Purpose::Live, OWNER, faults).await.unwrap();
        direct.execute(AssertSqlSafe(keep)).await.unwrap();
        // Nothing is to come between the round trips of a method.
        let PostgresStore { database: way, writer, leases, .. } = store;
        let nothing = CancellationToken::new().drop_guard();
        let probed = Mutex::default();
        let store = PostgresStore { database: way, writer, leases, probed, _stop: nothing };
        let is_impatient = manner.tries_max == 1;
        let (kept, start) = (Rows::new(), Contents::new());
        let mut bench =
            Self { database, direct, proxy, store, scene, is_impatient, read, kept, start };
        bench.kept = bench.rows().await;
        bench.start = numbered_in_order(bench.kept.clone());
        bench
    }

    /// Sets everything back.
    async fn restore(&self) {
        let rows = self.rows().await;
        let differing = self.kept.symmetric_difference(&rows).map(|(table, ..)| table);
        let differing: BTreeSet<_> = differing.collect();
        if differing.contains(&"leases".to_owned()) {
            self.store.close().await;
        }
        let statements: Vec<String> = differing
            .into_iter()
            .map(|table| format!("DELETE FROM {table}; INSERT INTO {table} TABLE kept.{table};"))
            .collect();
        self.direct.execute(AssertSqlSafe(statements.concat())).await.unwrap();
    }

    async fn rows(&self) -> Rows<i64> {
        let query = sqlx::query(AssertSqlSafe(self.read.clone()));
        let rows = query.fetch_all(&self.direct).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    async fn contents(&self) -> Contents {
        numbered_in_order(self.rows().await)
    }

    async fn call(&self, method: &str) -> Result<(), StoreError> {
        let called = async {
            match self.scene.change(&self.store, method).await {
                Some(answered) => answered,
                None => self.scene.look(&self.store, method).await.expect("it is on the list"),
            }
        };
        // Whether it can write is known for a while otherwise.
        *self.store.probed.lock().await = None;
        let mut called = pin!(timeout(STUCK, called));
        let answered = tokio::select! {
            answered = &mut called => answered,
            () = self.proxy.fell_silent() => {
                tokio::time::pause();
                let answered = called.await;
                // What was given up is dropped when it is not answered for a while; what is alive
                // takes real time.
                let longest = DB_ANSWER_TIMEOUT + 2 * DB_CONNECT_TIMEOUT;
                let _ = timeout(longest, self.every_place_is_free()).await;
                tokio::time::resume();
                let free = timeout(STUCK, self.every_place_is_free()).await;
                free.expect("a connection is kept that nobody uses");
                answered
            }
        };
        answered.unwrap_or_else(|_| panic!("{method} waits without end"))
    }

    /// Returns when no connection is in use any more.
    async fn every_place_is_free(&self) {
        let pools = &self.store.database.pools;
        let mut looks = interval(Duration::from_millis(10));
        while pools.iter().any(|pool| pool.num_idle() < pool.size() as usize) {
            looks.tick().await;
        }
    }

    /// What a method does when nothing is cut.
    async fn undisturbed(&self, method: &str) -> Undisturbed {
        self.restore().await;
        self.call(method).await.unwrap();
        let after = self.contents().await;
        self.call(method).await.unwrap();
        let twice = self.contents().await;
        self.restore().await;
        Undisturbed { after, twice }
    }

    async fn end(self) {
        let Self { database, direct, store, .. } = self;
        drop(store);
        direct.close().await;
        database.end().await;
    }
}

/// The contents after a method, and after it was called twice.
struct Undisturbed {
    after: Contents,
    twice: Contents,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    cuts: usize,
    /// How many of them the caller was told of.
    told: usize,
    /// After how many of them a method was done in part, which one method may be.
    in_part: usize,
}

/// Cuts at each round trip of a method in turn, until it needs no more of them. The error tells
/// what must not be.
async fn cut_everywhere(
    bench: &Bench,
    method: &str,
    cut: Cut,
    found: &mut Found,
) -> Result<(), String> {
    let clean = bench.undisturbed(method).await;
    let is_done = |contents: &Contents| {
        *contents == clean.after || COUNTING.contains(&method) && *contents == clean.twice
    };
    let (mut done, mut part) = (0, None);
    for round_trips in 0.. {
        if bench.is_impatient {
            bench.proxy.hang_up();
        }
        bench.proxy.cut_after(round_trips, cut, method == CONNECTING);
        let answered = bench.call(method).await;
        let Some(at_commit) = bench.proxy.let_through() else { break };
        found.cuts += 1;
        let at = |what| format!("{method}, {cut:?} after {round_trips} round trips: {what}");
        let mut contents = bench.contents().await;
        if answered.is_err() {
            found.told += 1;
            if contents == bench.start {
                continue;
            }
            if contents == clean.after {
                done += 1;
                let is_last = cut == Cut::Unanswered && (at_commit || method == COMMITS_ITSELF);
                if !is_last && !IN_PARTS.contains(&method) {
                    return Err(at("done before the commit".into()));
                }
            } else if method == FIRST_PART_SEEN && *part.get_or_insert(contents.clone()) == contents
            {
                found.in_part += 1;
            } else {
                return Err(at(format!("half done: {}", difference(&contents, &clean.after))));
            }
            // Whoever was told asks again.
            bench.call(method).await.map_err(|error| at(error.to_string()))?;
            contents = bench.contents().await;
        }
        if !is_done(&contents) {
            return Err(at(format!("not done: {}", difference(&contents, &clean.after))));
        }
        if contents != bench.start {
            bench.restore().await;
        }
    }
    // The cut after the commit was among them.
    let is_told = bench.is_impatient && cut == Cut::Unanswered && bench.start != clean.after;
    if is_told && done == 0 {
        Err(format!("{method} was never done and told otherwise"))
    } else {
        Ok(())
    }
}

/// Which rows one has and the other has not.
fn difference(one: &Contents, other: &Contents) -> String {
    let more: Vec<_> = one.difference(other).collect();
    let fewer: Vec<_> = other.difference(one).collect();
    format!("there are {more:?} and there are not {fewer:?}")
}

/// The methods of the store that have to do with the database, as they stand in the code.
fn methods() -> Vec<&'static str> {
    let (_, methods) = include_str!("../../store.rs").split_once("\nimpl Store for").unwrap();
    let methods = methods.split("\n    async fn ").skip(1);
    methods.map(|method| method.split('(').next().unwrap()).collect()
}

/// Cuts at each round trip of every method, in these ways.
async fn cut_all(manner: Manner, cuts: &[Cut]) -> Found {
    let bench = Bench::new(manner).await;
    let mut found = Found::default();
    for method in methods() {
        for cut in cuts {
            cut_everywhere(&bench, method, *cut, &mut found).await.unwrap();
        }
    }
    bench.end().await;
    println!("{cuts:?}: {found:?}");
    found
}

#[tokio::test]
async fn each_method_is_called_and_those_that_write_do_something() {
    let bench = Bench::new(PATIENT).await;
    for method in methods() {
        let Undisturbed { after, twice } = bench.undisturbed(method).await;
        let writes = bench.scene.change(&bench.store, method).await.is_some();
        assert_eq!(bench.start != after, writes, "{method}");
        assert_eq!(after != twice, COUNTING.contains(&method), "{method} done twice");
    }
    bench.end().await;
}

#[tokio::test]
async fn what_is_cut_and_not_tried_again_is_done_or_not_and_never_half() {
    let found = cut_all(IMPATIENT, &[Cut::Unsent, Cut::Unanswered]).await;
    assert!(found.told > 600 && found.in_part > 0, "{found:?}");
}

#[tokio::test]
async fn what_is_cut_is_tried_again_and_done() {
    let found = cut_all(PATIENT, &[Cut::Unsent, Cut::Unanswered]).await;
    assert!(found.cuts > 300 && found.told == 0, "{found:?}");
}

#[tokio::test]
async fn a_database_that_falls_silent_is_not_waited_for_without_end() {
    let found = cut_all(IMPATIENT, &[Cut::Silent]).await;
    assert!(found.cuts > 300 && found.told == found.cuts, "{found:?}");
}

#[tokio::test]
async fn a_store_that_commits_in_between_is_found_half_done() {
    let bench = Bench::new(HASTY).await;
    let mut wrong = Vec::new();
    for method in methods() {
        let checked = cut_everywhere(&bench, method, Cut::Unsent, &mut Found::default()).await;
        wrong.extend(checked.err());
    }
    bench.end().await;
    let half = wrong.iter().filter(|wrong| wrong.contains("half done")).count();
    println!("the control: {} methods are wrong, {half} of them half done", wrong.len());
    // All that write in transactions; those that write only one thing are done too early.
    assert!(wrong.len() >= 20 && half > 10, "{wrong:?}");
}
