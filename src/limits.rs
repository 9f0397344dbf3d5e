//! Every bound of the product in one place: bodies, batches, strings, queues, waits and ages.
//!
//! A limit that protects us is ours to choose; a limit that Meta sets names its source. Nothing
//! here is computed, and nothing else in the program invents a bound of its own.

use std::ops::RangeInclusive;
use std::time::Duration;

// ---- What strangers may send ------------------------------------------------------------------

/// Largest webhook body in bytes. A delivery of 1,000 leads, Meta's maximum, is about 300 kB.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body of a single stage update, in bytes.
pub const UPDATE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a batch of stage updates, in bytes.
pub const BATCH_BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most stage updates in one batch.
pub const BATCH_UPDATES_MAX: usize = 1_000;
/// Longest stage name in bytes.
pub const STAGE_BYTES_MAX: usize = 100;
/// Longest name of a source in bytes.
pub const SOURCE_BYTES_MAX: usize = 64;
/// Longest id of a CRM's own record in bytes.
pub const CRM_ID_BYTES_MAX: usize = 255;
/// Most leads that an e-mail address or phone number is looked up for, the newest of them.
pub const MATCH_CANDIDATES_MAX: usize = 100;
/// How often who was found by an address leads to further addresses, in a database.
pub const MATCH_ROUNDS_MAX: usize = 6;
/// Longest idempotency key in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest single value of a customer parameter in bytes.
pub const CUSTOMER_VALUE_BYTES_MAX: usize = 1_024;
/// Most values of one customer parameter.
pub const CUSTOMER_VALUES_MAX: usize = 10;
/// Digits of a phone number with its country code. E.164 has at most 15; fewer than 7 are an
/// extension or a mistake that many people share.
pub const PHONE_DIGITS: RangeInclusive<usize> = 7..=15;
/// Largest `custom_data` object, written as JSON, in bytes.
pub const CUSTOM_DATA_BYTES_MAX: usize = 4 * 1024;
/// Largest body that says which dead letters to queue again, in bytes.
pub const RETRY_BODY_BYTES_MAX: usize = 128 * 1024;
/// Most dead letters that one request queues again.
pub const RETRY_EVENTS_MAX: usize = 1_000;
/// Largest payload of a CRM's own webhook, in bytes. A contact with all its history has 100 kB.
pub const HOOK_BODY_BYTES_MAX: usize = 512 * 1024;
/// Most levels of elements in what a CRM sends as XML; of JSON, serde takes 128.
pub const HOOK_DEPTH_MAX: usize = 64;
/// Most reports of one CRM that no mapping fits and that are kept for replay.
pub const UNMAPPED_PER_SOURCE_MAX: usize = 1_000;
/// Largest such report that is kept, in bytes.
pub const UNMAPPED_BYTES_MAX: usize = 128 * 1024;
/// How long one is kept, in milliseconds: after that nothing in it can be sent (META 3.4).
pub const UNMAPPED_KEPT_MS: i64 = 7 * DAY_MS;
/// How many of them a replay takes from the store at a time.
pub const REPLAY_PAGE: usize = 50;
/// How far the time of a CRM's signature may be from now, in seconds: an older one may be a replay.
pub const HOOK_TIMESTAMP_TOLERANCE_S: i64 = 5 * 60;
/// How often it is told that the webhooks of a source are refused, at most, in milliseconds:
/// strangers can bring it about.
pub const HOOK_REFUSALS_PACE_MS: i64 = 60_000;
/// Shortest secret that a CRM may show in a path or a header, or sign with, in bytes.
pub const HOOK_SECRET_BYTES_MIN: usize = 16;
/// Longest value of any query parameter in bytes.
pub const QUERY_VALUE_BYTES_MAX: usize = 512;
/// Most events that one lead may have; a CRM that loops is stopped here.
pub const EVENTS_PER_LEAD_MAX: usize = 500;
/// Longest time a request may take before it is answered 503.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

// ---- The door ---------------------------------------------------------------------------------

/// Longest time for the head of the first request on a connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the head of each further request. Longer than proxies keep idle connections
/// open, so that it is they who close them and no request meets a closing door.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest time for the whole body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of each body that are its own; what is beyond comes out of the budget of all bodies. A
/// delivery of up to about 50 leads needs no more. With every connection open it is 64 MiB.
pub const BODY_OWN_BYTES: usize = 16 * 1024;
/// The budget of all bodies that are being read or looked at, in bytes.
pub const BODY_BUDGET_BYTES: usize = 64 * 1024 * 1024;
/// Longest time that a client may take none of its answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Largest head of a request in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most connections at a time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long the accept loop waits after a failure such as too many open files.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

// ---- Files that are imported ------------------------------------------------------------------

/// Longest row of a file in bytes; one that is longer has a quote that does not end.
pub const IMPORT_ROW_BYTES_MAX: usize = 64 * 1024;
/// Most columns of a file.
pub const IMPORT_COLUMNS_MAX: usize = 256;
/// Most lines of a file that are named for each thing that is wrong with it.
pub const IMPORT_LINES_SHOWN_MAX: usize = 5;
/// Most kinds of problems that are told apart; rows with further ones are counted by code.
pub const IMPORT_PROBLEMS_SHOWN_MAX: usize = 50;
/// Fewest long ids that have to end in zeros, all of them, before a spreadsheet is suspected.
pub const IMPORT_ROUND_IDS_MIN: u64 = 5;
/// Waits before the server is asked again, in seconds; after that it counts as gone.
pub const IMPORT_RETRY_SCHEDULE_S: [u64; 8] = [1, 2, 5, 10, 30, 60, 60, 120];
/// Longest that the server's `Retry-After` makes an import wait, in seconds.
pub const IMPORT_RETRY_AFTER_S_MAX: u64 = 120;

// ---- Pages of lists ---------------------------------------------------------------------------

/// Page size of a list when none is asked for.
pub const PAGE_DEFAULT: usize = 50;
/// Largest page of a list.
pub const PAGE_MAX: usize = 200;
/// Most rows that one page may look at; a filter that matches little answers a short page with a
/// cursor to go on from.
pub const PAGE_SCAN_MAX: usize = 10_000;
/// Longest queue that a page looks through as a whole, because its rows come in another order;
/// while a queue is longer, the newest events are looked at instead.
pub const PAGE_QUEUE_MAX: u64 = 100_000;
/// Most attempts that are shown of one event, the last ones; all of them are counted.
pub const ATTEMPTS_SHOWN_MAX: usize = 100;

// ---- Ages, as Meta sets them (META 3.4) -------------------------------------------------------

/// How long before its seven days an undelivered event raises the alarm, in seconds.
pub const DEADLINE_ALARM_S: i64 = 24 * 60 * 60;
/// Most leads, and most pieces in quarantine, that one transaction removes for their age.
pub const REMOVE_MAX: usize = 500;
/// How long the clean-up waits between two such transactions, in milliseconds.
pub const REMOVE_PACE_MS: i64 = 1_000;
/// How long it waits when it is through, in milliseconds.
pub const REMOVE_EVERY_MS: i64 = 60 * 60 * 1_000;
/// Milliseconds in a day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// For how many days leads may be kept. Fewer than the first would forget a lead while Meta may
/// still report it again or take its events.
pub const RETENTION_DAYS: RangeInclusive<u32> = 14..=3_650;
/// Most leads that are looked through at a time for those that are too old to keep.
pub const REMOVE_SCAN_MAX: usize = 10_000;
/// How often that alarm is repeated, in milliseconds.
pub const DEADLINE_ALARM_EVERY_MS: i64 = 60 * 60 * 1_000;
/// Oldest `event_time` that Meta accepts, in seconds before the upload: 7 days.
pub const EVENT_AGE_MAX_S: i64 = 7 * 24 * 60 * 60;
/// An event that is this close to its seven days is not sent any more: the request could arrive
/// too late and would take its whole batch down. Seconds.
pub const SEND_MARGIN_S: i64 = 60;
/// Tolerance for a time that we took from our own clock: how far Meta's clock may be ahead of
/// ours before "now" counts as before the lead. Seconds.
pub const OWN_CLOCK_TOLERANCE_S: u32 = 60;
/// Largest clock tolerance that a source may be given, in seconds.
pub const CLOCK_TOLERANCE_S_MAX: u32 = 3_600;

// ---- The store --------------------------------------------------------------------------------

/// Write operations that may wait for the writer; past that the door answers 503.
pub const WRITE_QUEUE_MAX: usize = 8_192;
/// Most operations in one commit.
pub const COMMIT_GROUP_MAX: usize = 1_024;
/// Leads, contacts and events that one transaction of a database is about, unless one call is about
/// more.
pub const DB_GROUP_WEIGHT_MAX: usize = 2_000;
/// Leads and reports after which nothing more is added to a commit. All of them are in memory twice
/// until then, and everybody waits for all.
pub const COMMIT_WEIGHT_MAX: usize = 2_048;
/// Connections to a database of one instance, at most.
pub const DB_CONNECTIONS_MAX: u32 = 16;
/// Of these, those kept free for who writes and who renews duties.
pub const DB_CONNECTIONS_KEPT: u32 = 3;
/// For how long it is taken for known whether something can be written.
pub const DB_PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to find that out.
pub const DB_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long anything waits for a free connection to a database, or for a new one.
pub const DB_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a database may take for one statement.
pub const DB_STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer of a database is waited for, which may be gone without a word; longer than a
/// statement may take.
pub const DB_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a transaction is done that a lost connection ended.
pub const DB_TRIES_MAX: u32 = 10;
/// For how long a transaction is done again that others were in the way of.
pub const DB_TRIES_TIME: Duration = Duration::from_secs(10);
/// After so many conflicts, what was to be done together is done in halves.
pub const DB_CONFLICTS_MAX: u32 = 3;
/// First wait before a transaction is done again, in milliseconds; it doubles each time.
pub const DB_RETRY_MS: u64 = 2;
/// Longest wait before a transaction is done again, in milliseconds.
pub const DB_RETRY_MS_MAX: u64 = 250;
/// Rows that are read at a time where a list is looked through.
pub const DB_SCAN_CHUNK: usize = 200;
/// Leads of a database that are looked after in one transaction.
pub const DB_LEADS_MAX: usize = 500;
/// How long a duty stays with an instance that is not heard of any more.
pub const LEASE: Duration = Duration::from_secs(6);
/// How often an instance says that it goes on with its duties.
pub const LEASE_RENEW_EVERY: Duration = Duration::from_millis(1_500);
/// How much earlier than the database an instance takes its duties for ended.
pub const LEASE_MARGIN: Duration = Duration::from_millis(500);
/// How often it is looked whether other instances put something into a queue, in milliseconds.
pub const SHARED_LOOK_EVERY_MS: i64 = 200;
/// How long the migration of a database keeps others from migrating it.
pub const MIGRATION_LOCK: Duration = Duration::from_mins(1);
/// Memory for cached pages of the embedded store, in bytes.
pub const STORE_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// What has to fit on the disk before an embedded store that failed is opened again, in bytes.
pub const STORE_PROBE_BYTES: usize = 4 * 1024 * 1024;
/// How often an embedded store that failed is tried again.
pub const STORE_REOPEN_EVERY: Duration = Duration::from_millis(500);
/// One of two segments of the log of an embedded store, in bytes. The file is longer by both.
pub const STORE_LOG_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Changes that the index of leads of an embedded store may lack: one in so many of its rows,
pub const STORE_INDEX_WAITING_PART: u64 = 8;
/// and at most so many, of 16 bytes each in memory.
pub const STORE_INDEX_WAITING_MAX: usize = 512 * 1024;
/// Bytes of the database that are written without a flush between them.
pub const STORE_FLUSH_BYTES: u64 = 256 * 1024;
/// How far whoever brings rows into the database stands back, of 19.
pub const STORE_MERGE_NICENESS: i32 = 10;
/// Bytes of the store's file that are read at a time where it is read through.
pub const STORE_CHUNK_BYTES: usize = 64 * 1024;

/// Memory for cached pages of a copy that is being made or proven, in bytes.
pub const COPY_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// What a backup leaves free on a disk, in bytes: one that would take more fails, so that leads can
/// still be stored.
pub const COPY_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// How much of a backup is read, hashed and sent at a time, in bytes.
pub const COPY_CHUNK_BYTES: usize = 256 * 1024;
/// Most records that are moved to another store at a time.
pub const TRANSFER_BATCH_RECORDS: usize = 1_000;
/// Most bytes that are, but for the last record.
pub const TRANSFER_BATCH_BYTES: usize = 1024 * 1024;
/// Batches that wait to be written there.
pub const TRANSFER_BATCHES_WAITING: usize = 4;
/// For how long no instance may have been heard of before a database is copied.
pub const TRANSFER_QUIET: Duration = Duration::from_mins(1);
/// Longest that a backup may take to be made, and to be taken away.
pub const BACKUP_TIMEOUT: Duration = Duration::from_hours(1);

// ---- Delivery ---------------------------------------------------------------------------------

/// Most events in one request to the Conversions API (META 3.1).
pub const SEND_BATCH_MAX: usize = 1_000;
/// Shortest time from one request of a dataset that has room for more events to the next one, in
/// milliseconds; Meta mostly takes longer to answer.
pub const SEND_EVERY_MS: i64 = 5;
/// Longest wait for Meta to accept a connection.
pub const SEND_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for Meta's whole answer.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer of Meta that is read, in bytes.
pub const SEND_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest text of Meta's that is kept with an attempt, in bytes.
pub const ATTEMPT_TEXT_BYTES_MAX: usize = 500;
/// Waits between tries of a dataset, in milliseconds; the last one repeats.
pub const RETRY_SCHEDULE_MS: [u64; 10] =
    [1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000];
/// Longest that Meta's headers can make a dataset wait, in milliseconds.
pub const THROTTLE_WAIT_MS_MAX: u64 = 60 * 60 * 1_000;
/// Longest time between two probes of a paused dataset, in milliseconds.
pub const PROBE_EVERY_MS_MAX: u64 = 5 * 60 * 1_000;
/// Events that are tried alone while Meta refuses everything, before the next wait.
pub const REFUSALS_PER_PROBE_MAX: u32 = 50;
/// How long an event that Meta refused meanwhile waits, so that a probe looks at others; longer
/// than the time between probes. Milliseconds.
pub const DISBELIEF_RETRY_MS: i64 = 15 * 60 * 1_000;
/// How long a worker waits when the store fails, in milliseconds.
pub const STORE_RETRY_MS: i64 = 1_000;
/// Most bytes of events in one request, by estimate.
pub const SEND_BYTES_MAX: usize = 1024 * 1024;
/// Events that Meta may refuse one after the other, taking none between them, before that is held
/// against the dataset and not against the events.
pub const REFUSALS_IN_A_ROW_MAX: u32 = 5;
/// Longest that an event which Meta may be wrong about waits before it is tried again, in
/// milliseconds; at first it waits by the schedule.
pub const DOUBT_RETRY_MS_MAX: i64 = 30_000;
/// How long before its seven days an event is tried again whatever the wait is, in milliseconds: an
/// hour is left in which nothing but trying happens.
pub const DEADLINE_TRY_MS: i64 = 60 * 60 * 1_000;
/// How often it is tried from then on, in milliseconds.
pub const DEADLINE_PACE_MS: i64 = 60 * 1_000;
/// Longest that a worker sleeps with nothing due, so that a missed wake-up costs seconds only.
pub const WORKER_IDLE_MS: i64 = 5_000;
/// How often events that no worker looks after are looked through, in milliseconds.
pub const HOUSEKEEPING_EVERY_MS: i64 = 60_000;
/// How long a shutdown waits for requests and workers to finish; supervisors kill after ten
/// seconds.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);

// ---- Reading from the Graph API ----------------------------------------------------------------

/// Leads that one request asks for.
pub const READ_LEADS_PER_PAGE: usize = 100;
/// Forms that one request asks for.
pub const READ_FORMS_PER_PAGE: usize = 100;

/// Largest answer that is read, in bytes: a page of leads with long answers.
pub const READ_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a token that Meta refuses is not used, in milliseconds.
pub const READ_DENIED_WAIT_MS: u64 = 15 * 60 * 1_000;
/// From which share of Meta's budget of calls on reading rests, in per cent.
pub const READ_USED_PERCENT_MAX: u64 = 80;
/// How long it rests then, in milliseconds.
pub const READ_REST_MS: u64 = 10 * 60 * 1_000;
/// Most forms that are remembered with their questions.
pub const READ_FORMS_KEPT_MAX: usize = 10_000;
/// For how long they are, in milliseconds: a form that is published can't be changed any more.
pub const READ_FORMS_KEPT_MS: i64 = 24 * 60 * 60 * 1_000;
/// Waits between the tries to find a lead that a stage update named, in milliseconds.
pub const LOOK_UP_SCHEDULE_MS: [i64; 5] = [2_000, 10_000, 60_000, 5 * 60_000, 30 * 60_000];
/// Most leads that are looked for at a time; further ones wait for the next round.
pub const LOOK_UPS_MAX: usize = 10_000;
/// How often it is told that there was no room for more, at most, in milliseconds.
pub const LOOK_UPS_FULL_PACE_MS: i64 = 60_000;
/// How often all leads that are awaited are looked for once more, in milliseconds.
pub const LOOK_UP_ROUND_EVERY_MS: i64 = 6 * 60 * 60 * 1_000;
/// Most leads that are looked for in such a round.
pub const LOOK_UP_ROUND_MAX: usize = 500;
/// How long before the mark of a form reading begins again, in seconds: Meta may show a lead late.
pub const BACKFILL_OVERLAP_S: i64 = 6 * 60 * 60;
/// From which age on a lead that only reading brought counts as lost, in seconds (META 2).
pub const WEBHOOK_LATE_S: i64 = 15 * 60;
/// Tries of one question of a backfill while Meta has trouble, before the form is given up.
pub const BACKFILL_TRIES_MAX: u32 = 5;
/// Waits of one question of a backfill for Meta's budget of calls, before form or Page is given up.
pub const BACKFILL_WAITS_MAX: u32 = 2;
/// Longest such wait, in milliseconds; the next backfill asks again after a longer one.
pub const BACKFILL_WAIT_MS_MAX: i64 = 15 * 60 * 1_000;
/// Most pages of leads that one pass over a form reads.
pub const BACKFILL_PAGES_MAX: u32 = 100_000;
/// Longest time that a backfill may go back, in seconds: Meta keeps leads for 90 days.
pub const BACKFILL_SINCE_S_MAX: i64 = 90 * 24 * 60 * 60;
/// Most of the new leads that a backfill names, the first ones; all of them are counted.
pub const BACKFILL_LEADS_SHOWN_MAX: usize = 20;
/// Largest body that asks for a backfill, in bytes.
pub const BACKFILL_BODY_BYTES_MAX: usize = 4 * 1024;
/// How often leads that the webhook lost may be looked for, in seconds.
pub const BACKFILL_EVERY_S: RangeInclusive<i64> = 300..=7 * 24 * 60 * 60;

// ---- Alarms out -------------------------------------------------------------------------------

/// Most messages that wait for the receiver of alarms; past that new subjects are logged only.
pub const ALARMS_WAITING_MAX: usize = 1_000;
/// Most event ids that one alarm names.
pub const ALARM_EVENT_IDS_MAX: usize = 10;
/// How often waiting alarms are looked through, in milliseconds.
pub const ALARM_LOOK_EVERY_MS: i64 = 5_000;
/// Shortest time between two alarms about the same subject, in milliseconds.
pub const ALARM_PACE_MS: i64 = 60_000;
/// How long an alarm is tried before it is given up, in milliseconds.
pub const ALARM_KEPT_MS: i64 = 3 * 24 * 60 * 60 * 1_000;
/// Longest wait for the receiver's answer to an alarm.
pub const ALARM_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest key that signs alarms, in bytes, as Standard Webhooks asks.
pub const ALARM_KEY_BYTES: RangeInclusive<usize> = 24..=64;
/// How often pauses and silence are looked for, in milliseconds.
pub const ALARM_WATCH_EVERY_MS: i64 = 1_000;
/// Shortest and longest silence of the webhook that can be told, in seconds.
pub const WEBHOOK_SILENCE_S: RangeInclusive<i64> = 60..=30 * 24 * 60 * 60;

// ---- The stand-in for Meta --------------------------------------------------------------------

/// Events, and leads, that the stand-in remembers; the oldest are forgotten first.
pub const SANDBOX_EVENTS_MAX: usize = 100_000;
/// Calls that the stand-in answers within a day for each lead that it has, as Meta does (META 2).
pub const SANDBOX_READS_PER_LEAD: u64 = 4_800;

// ---- Load --------------------------------------------------------------------------------------

/// Most connections that load is put on a server with.
pub const BENCH_CONNECTIONS_MAX: usize = 4_096;
/// Most leads of one delivery that is made up; Meta sends no more (META 1.3).
pub const BENCH_LEADS_PER_POST_MAX: usize = 1_000;
/// Most arrivals a second that may be asked for.
pub const BENCH_RATE_MAX: f64 = 1_000_000.0;
/// Memory for requests that are made ahead, in bytes.
pub const BENCH_AHEAD_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of requests that are handed over at a time.
pub const BENCH_CHUNK_BYTES: usize = 512 * 1024;
/// Longest wait for an answer; then the connection counts as broken.
pub const BENCH_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes.
pub const BENCH_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a connection waits before it is opened again.
pub const BENCH_RECONNECT_WAIT: Duration = Duration::from_millis(50);
/// How late a request may be sent in an open loop; one that would be later counts as not sent.
pub const BENCH_LATE_MAX: Duration = Duration::from_secs(10);
/// How late the last request may be sent before it is said that nobody kept up.
pub const BENCH_KEPT_UP: Duration = Duration::from_millis(100);
/// Longest latency that is told apart, in nanoseconds; from there on all count as this.
pub const BENCH_LATENCY_NS_MAX: u64 = 120_000_000_000;
/// How often it is told how far a run is.
pub const BENCH_PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Longest run.
pub const BENCH_ELAPSED_MAX: Duration = Duration::from_hours(24);
