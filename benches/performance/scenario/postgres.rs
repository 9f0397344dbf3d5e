//! The store on PostgreSQL beside the best that the same server does with the same rows when
//! nothing else has to be thought of: pgbench with a statement for many leads at once.

use std::time::Duration;

use leadloop::bench::{Pace, Until};

use crate::candidate::{Server, leadloop};
use crate::cluster::Cluster;
use crate::outcome::{Outcome, Table, Target, Unit, grouped};
use crate::process::free_address;
use crate::rig::{Rig, webhooks};
use crate::samples::{Samples, real};
use crate::stores::NOWHERE;

/// The columns of leadloop's tables, with their keys and no other index.
const TABLES: &str = "
    CREATE TABLE leads (lead_id int8 PRIMARY KEY, seq int8, received_at_ms int8, record bytea);
    CREATE TABLE outbox (dataset_id int8, event_time int8, reported bool, seq int8, lead_id int8,
        PRIMARY KEY (dataset_id, event_time, reported, seq));";
/// Stores leads with random ids, and queues an event for each that was new.
const STATEMENT: &str = "
WITH new AS (
    INSERT INTO leads
    SELECT 10000000000000000 + (random() * 8e16)::int8,
        (extract(epoch FROM clock_timestamp()) * 1e6)::int8 * 2000 + :client_id * 1000 + place,
        1762000000000, convert_to(repeat('x', 80), 'UTF8')
    FROM generate_series(1, LEADS) AS place
    ON CONFLICT DO NOTHING
    RETURNING lead_id, seq
)
INSERT INTO outbox SELECT 700, 1762000001, false, seq, lead_id FROM new;
";
/// What leadloop has besides, to find things by.
const INDEXES: &str = "
    CREATE INDEX ON leads (seq);
    CREATE INDEX ON outbox (lead_id);";
/// The same transaction as leadloop's: it looks whether the leads are there, and is as if it were
/// alone.
const TRANSACTION: &str = "
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT lead_id, seq, received_at_ms, record FROM leads WHERE lead_id = ANY(ARRAY(
    SELECT 10000000000000000 + (random() * 8e16)::int8 FROM generate_series(1, LEADS)));
STATEMENT
COMMIT;
";
/// Leads of a statement, and clients.
const STATEMENTS: [(u64, usize); 4] = [(100, 1), (100, 2), (1_000, 1), (1_000, 2)];
/// Leads of a delivery, and connections; the first is what the goal is about.
const DELIVERIES: [(usize, usize); 2] = [(1_000, 4), (1, 64)];
const LEAST: Duration = Duration::from_secs(5);

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(&rig.disk)?;
    cluster.sql("postgres", "CREATE DATABASE floor")?;
    cluster.sql("floor", TABLES)?;
    let mut floors = STATEMENTS.map(|_| Samples::default());
    cluster.sql("postgres", "CREATE DATABASE same")?;
    cluster.sql("same", &format!("{TABLES}{INDEXES}"))?;
    let (mut best, mut same) = (Samples::default(), Samples::default());
    let mut rates = DELIVERIES.map(|_| Samples::default());
    for round in rig.rounds() {
        let mut most = 0.0_f64;
        for ((leads, clients), floor) in STATEMENTS.into_iter().zip(&mut floors) {
            rig.step(format!("round {}, pgbench, {leads} leads, {clients} clients", round + 1));
            let per_s = pgbench(rig, &cluster, ("floor", STATEMENT), leads, clients)?;
            floor.push(per_s);
            most = most.max(per_s);
        }
        best.push(most);
        rig.step(format!("round {}, pgbench, leadloop's transaction", round + 1));
        let transaction = TRANSACTION.replace("STATEMENT", STATEMENT.trim());
        same.push(pgbench(rig, &cluster, ("same", &transaction), 1_000, 1)?);
        for ((leads_per_post, connections), rate) in DELIVERIES.into_iter().zip(&mut rates) {
            rig.step(format!("round {}, leadloop, {connections} connections", round + 1));
            let server = start(rig, &cluster).await?;
            let load = webhooks(leads_per_post, 0);
            let until = Until::Elapsed(time(rig));
            let report = rig.load_until(&server, load, connections, Pace::Closed, until).await?;
            rate.push(report.leads_per_s());
        }
    }
    outcome(&cluster, &floors, (&best, &same), &rates)
}

/// How many leads a second pgbench stores with a script in a database whose tables are empty.
fn pgbench(
    rig: &Rig,
    cluster: &Cluster,
    (database, script): (&str, &str),
    leads: u64,
    clients: usize,
) -> anyhow::Result<f64> {
    cluster.sql(database, "TRUNCATE leads, outbox; CHECKPOINT")?;
    let path = rig.disk.path("statement.sql");
    // pgbench ends a statement at a semicolon and nowhere else.
    std::fs::write(&path, script.replace("LEADS", &leads.to_string()))?;
    let per_s = cluster.pgbench(database, &path, clients, time(rig).as_secs())?;
    Ok(per_s * real(leads))
}

fn outcome(
    cluster: &Cluster,
    floors: &[Samples],
    (best, same): (&Samples, &Samples),
    rates: &[Samples],
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let what = "PostgreSQL, deliveries of 1,000 leads ÷ the best statement by pgbench";
    outcome.goal(what, Target::AtLeast(0.7), Unit::Ratio, rates[0].ratio_to(best));
    let mut table = Table::new("", &["on PostgreSQL", "leads a second"]);
    for ((leads, clients), floor) in STATEMENTS.into_iter().zip(floors) {
        let what = format!("pgbench, {} leads in a statement, {clients} at a time", grouped(leads));
        table.row(what, [Unit::PerSecond.summary(floor)]);
    }
    table.row("pgbench, leadloop's transaction of 1,000 leads", [Unit::PerSecond.summary(same)]);
    for ((leads, connections), rate) in DELIVERIES.into_iter().zip(rates) {
        let what = format!("leadloop, {} in a delivery, {connections} connections", grouped(leads));
        table.row(what, [Unit::PerSecond.summary(rate)]);
    }
    outcome.tables.push(table);
    outcome.note(format!(
        "PostgreSQL {} with its default flushes and 512 MB of shared buffers. A statement of \
         pgbench puts the rows that leadloop puts into `leads` and `outbox`, with primary keys and \
         no other index. leadloop's transaction is the same statement with leadloop's other indexes, \
         after a look whether the leads are there, serializable, one at a time. Nothing is \
         delivered meanwhile.",
        cluster.version()?
    ));
    Ok(outcome)
}

/// leadloop on a database with nothing in it.
async fn start(rig: &Rig, cluster: &Cluster) -> anyhow::Result<Server> {
    cluster.sql(
        "postgres",
        "DROP DATABASE IF EXISTS leadloop WITH (FORCE); CREATE DATABASE leadloop; CHECKPOINT",
    )?;
    let (address, folder) = (free_address()?, rig.disk.folder()?);
    let mut command = leadloop(address, &cluster.url("leadloop"), NOWHERE);
    command.current_dir(folder.path());
    Server::start(&mut command, address, folder).await
}

/// How long each measurement takes: a large delivery may take more than a second.
fn time(rig: &Rig) -> Duration {
    rig.effort.measure.max(LEAST)
}
