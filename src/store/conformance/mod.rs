//! One suite for every store: what the contract promises, in sentences.
//!
//! Each test takes any [`Store`](crate::store::Store) and runs on the model, on a redb file and on
//! redb in memory. What only a durable store can promise is tested beside that store.

/// Runs each test of a module on every kind of store.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::store::memory::MemoryStore::default()).await;
            })+
        }

        mod redb_file {
            use crate::store::redb::{Purpose, RedbStore};

            $(#[tokio::test]
            async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("store.redb");
                let store = RedbStore::open(&path, Purpose::Live).unwrap();
                super::$test(&store).await;
            })+
        }

        mod postgres {
            use crate::store::postgres::tests::on_database;

            $(#[tokio::test]
            async fn $test() {
                on_database(async |store| super::$test(store).await).await;
            })+
        }

        mod postgres_forced {
            use crate::store::postgres::tests::on_faulty_database;

            $(#[tokio::test]
            async fn $test() {
                on_faulty_database(true, async |store| super::$test(store).await).await;
            })+
        }

        mod redb_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::store::conformance::support::redb_in_memory()).await;
            })+
        }
    };
}

mod alarms;
mod awaiting;
mod event_filter;
mod funnel;
mod ingest;
mod look_up;
mod marks;
mod matching;
mod queue;
mod remove;
mod requeue;
mod requeue_many;
mod stage_update;
pub(in crate::store) mod support;
mod unmapped;
