//! Every single write, change of length and flush of the script fails once: with a full disk or an
//! I/O error, alone or with everything after it until the disk is well again.
//!
//! `LEADLOOP_FAULTS=all cargo test --release --lib every_single_operation -- --nocapture` lets each
//! operation fail in each of the four ways; otherwise each fails in one of them.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::disk::{Disk, EIO, ENOSPC, Fault, When};
use super::matrix::count;
use super::script::Player;
use crate::store::redb::RedbStore;
use crate::store::{Store, StoreError};

const FAULTS: [Fault; 4] =
    [Fault::Once(ENOSPC), Fault::FromHereOn(EIO), Fault::Once(EIO), Fault::FromHereOn(ENOSPC)];
/// Longest that the store may take to serve again when the disk is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of the operations that failed.
#[derive(Debug, Default)]
struct Tally {
    /// The start failed, and so the program would have ended.
    at_the_start: u64,
    /// A call was answered with it.
    told: u64,
    /// Power cuts right after a failure, and after closing.
    cuts: u64,
}

/// Plays the script on a disk with a plan, through what happens there.
async fn run(disk: &Disk, seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut player = Player::new();
    let store = match disk.try_store() {
        Ok(store) => store,
        Err(StoreError::Unavailable(_)) => {
            tally.at_the_start += 1;
            cut(disk, seed, &player, tally).await?;
            disk.set_broken(false);
            disk.try_store().map_err(|error| format!("it does not start: {error}"))?
        }
        Err(error) => return Err(format!("the start fails in another way: {error}")),
    };
    let playing = tokio::time::timeout(PATIENCE, player.play(&store));
    match playing.await.map_err(|_| "nobody is answered")?? {
        None => {}
        Some(StoreError::Unavailable(_)) => {
            tally.told += 1;
            live_through(disk, &store, seed, &mut player, tally).await?;
        }
        Some(error) => return Err(format!("it is told in another way: {error}")),
    }
    player.compare(&store).await?;
    drop(store);
    if !disk.has_struck() {
        return Err("it was not reached".into());
    }
    cut(disk, seed, &player, tally).await?;
    disk.set_broken(false);
    look(disk, &player).await
}

/// A call has just been told of the failure.
async fn live_through(
    disk: &Disk,
    store: &RedbStore,
    seed: u64,
    player: &mut Player,
    tally: &mut Tally,
) -> Result<(), String> {
    if disk.is_broken() {
        player.compare(store).await.map_err(|wrong| format!("reads do not go on: {wrong}"))?;
        let Some(StoreError::Unavailable(_)) = player.play(store).await? else {
            return Err("the next call is not told".into());
        };
    }
    cut(disk, seed, player, tally).await?;
    disk.set_broken(false);
    let healing = async {
        while store.probe().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, healing).await.map_err(|_| "it does not heal")?;
    player.compare(store).await?;
    match player.play(store).await? {
        None => Ok(()),
        Some(error) => Err(format!("it does not go on: {error}")),
    }
}

/// What would be found if the power went now.
async fn cut(disk: &Disk, seed: u64, player: &Player, tally: &mut Tally) -> Result<(), String> {
    tally.cuts += 1;
    let found = disk.after_the_cut(&mut StdRng::seed_from_u64(seed));
    look(&found, player).await.map_err(|wrong| format!("after a power cut: {wrong}"))
}

/// Opens what is on a disk and compares it with the model.
async fn look(disk: &Disk, player: &Player) -> Result<(), String> {
    let store = disk.try_store().map_err(|error| format!("it does not open: {error}"))?;
    player.compare(&store).await
}

#[tokio::test]
async fn every_single_operation_may_fail_and_is_told_and_the_store_heals() {
    let in_all_ways = std::env::var_os("LEADLOOP_FAULTS").is_some_and(|ways| ways == "all");
    let operations = count().await.operations;
    let (mut tally, mut runs) = (Tally::default(), 0);
    for operation in 1..=operations {
        let ways = FAULTS.iter().enumerate();
        for (way, fault) in ways.filter(|(way, _)| in_all_ways || operation % 4 == *way as u64) {
            let disk = Disk::new();
            disk.plan(When::Operation(operation), *fault);
            let seed = operation * 4 + way as u64;
            runs += 1;
            run(&disk, seed, &mut tally)
                .await
                .unwrap_or_else(|wrong| panic!("operation {operation}, {fault:?}: {wrong}"));
        }
    }
    println!("{operations} of {operations} operations, {runs} runs: {tally:?}");
    assert!(tally.told * 2 > runs, "too little was told: {tally:?}");
}

/// Lets each flush fail once and forget what it was to write; what is wrong then.
async fn forget(disk: fn() -> Disk) -> Vec<String> {
    let flushes = count().await.flushes;
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for flush in 1..=flushes {
        let disk = disk();
        disk.plan(When::Flush(flush), Fault::Forgotten);
        let found = run(&disk, flush, &mut tally).await;
        wrong.extend(found.err().map(|found| format!("flush {flush}: {found:.200}")));
    }
    println!("{flushes} of {flushes} flushes, {} are wrong: {tally:?}", wrong.len());
    wrong
}

#[tokio::test]
async fn what_a_failed_flush_has_forgotten_is_not_built_upon() {
    assert_eq!(forget(Disk::new).await, [""; 0]);
}

#[tokio::test]
async fn a_disk_that_is_trusted_after_a_failed_flush_loses_what_was_answered() {
    assert!(!forget(Disk::that_is_trusted).await.is_empty(), "the check can fail");
}

#[tokio::test]
async fn a_disk_that_lies_about_flushing_does_not_pass_when_operations_fail() {
    let operations = count().await.operations;
    let (mut tally, mut runs, mut broken) = (Tally::default(), 0, 0);
    for operation in (1..=operations).step_by(16) {
        let disk = Disk::that_lies();
        disk.plan(When::Operation(operation), Fault::Once(EIO));
        runs += 1;
        broken += u64::from(run(&disk, operation, &mut tally).await.is_err());
    }
    println!("{broken} of {runs} runs are found to lie");
    assert!(broken * 3 > runs, "the check can fail, and does: {broken} of {runs}");
}
