//! The journal by itself, on a disk that loses its power: what was committed is there, whole.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::store::redb::tests::disk::{Disk, Fault, When};

const BLOCKS: u64 = 40;
const SIZES: Sizes = Sizes {
    segment_bytes: 24 * BLOCK as u64,
    checkpoint_bytes_min: 9 * BLOCK as u64,
    ahead_bytes: 3 * BLOCK as u64,
};

impl Medium for InMemoryBackend {}

fn open<M: Medium>(medium: M) -> io::Result<Journaled<M>> {
    Journaled::open(medium, Checkpoints::Between, SIZES)
}

fn content(backend: &impl StorageBackend) -> Vec<u8> {
    let mut content = vec![0; within(backend.len().unwrap())];
    backend.read(0, &mut content).unwrap();
    content
}

/// One change of a database of some blocks.
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

impl Change {
    fn any(length: u64, random: &mut StdRng) -> Self {
        if random.random_bool(0.05) {
            return Self::Length(length + random.random_range(0..BLOCKS / 2) * BLOCK as u64);
        }
        let number = random.random_range(0..length / BLOCK as u64);
        // The database writes less than a block at its start only.
        let data = vec![random.random(); if number == 0 { 320 } else { BLOCK }];
        Self::Write(number * BLOCK as u64, data)
    }

    fn apply(&self, backend: &impl StorageBackend) -> io::Result<()> {
        match self {
            Self::Length(length) => backend.set_len(*length),
            Self::Write(offset, data) => backend.write(*offset, data),
        }
    }
}

/// Changes and commits until the medium fails: what was committed, and what was being committed.
fn play<M: Medium>(journaled: &Journaled<M>, random: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
    let (mut committed, model) = (content(journaled), InMemoryBackend::new());
    model.set_len(committed.len() as u64).unwrap();
    model.write(0, &committed).unwrap();
    for _ in 0..200 {
        for _ in 0..random.random_range(1..30) {
            let change = Change::any(model.len().unwrap(), random);
            change.apply(&model).unwrap();
            if change.apply(journaled).is_err() {
                return (committed.clone(), committed);
            }
        }
        let next = content(&model);
        if journaled.sync_data().is_err() {
            return (committed, next);
        }
        committed = next;
        assert!(content(journaled) == committed, "it reads what was written");
        if random.random_bool(0.1) {
            // The database is made shorter when what is cut off has not been used for a commit.
            let length = random.random_range(BLOCKS / 2..BLOCKS) * BLOCK as u64;
            if length < committed.len() as u64 {
                let shorter = committed[..within(length)].to_vec();
                if journaled.set_len(length).is_err() {
                    return (committed, shorter);
                }
                model.set_len(length).unwrap();
                committed = shorter;
            }
        }
    }
    (committed.clone(), committed)
}

/// Whether a disk holds this database. What was made longer or shorter since and not committed may
/// have become so, or not.
fn holds(disk: &Disk, database: &[u8]) -> bool {
    content(&open(disk.clone()).unwrap()).starts_with(database)
}

/// Cuts the power at a random operation, and again while what is left is opened.
fn cut(seed: u64, disk: &Disk) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    disk.set_len(BLOCKS * BLOCK as u64).unwrap();
    disk.sync_data().unwrap();
    let journaled = open(disk.clone()).unwrap();
    disk.cut_after(random.random_range(0..400));
    let (committed, next) = play(&journaled, &mut random);
    let mut disk = disk.after_the_cut(&mut random);
    for _ in 0..random.random_range(0..3) {
        disk.cut_after(random.random_range(0..6));
        if let Ok(journaled) = open(disk.clone()) {
            let _ = journaled.close();
        }
        disk = disk.after_the_cut(&mut random);
    }
    if holds(&disk, &committed) || holds(&disk, &next) {
        Ok(())
    } else {
        Err(format!("seed {seed}"))
    }
}

#[test]
fn what_was_committed_survives_power_cuts_whole() {
    for seed in 0..400 {
        assert_eq!(cut(seed, &Disk::empty()), Ok(()));
    }
}

#[test]
fn a_disk_that_lies_about_flushing_loses_what_was_committed() {
    let lost = (0..40).filter(|seed| {
        let disk = Disk::empty();
        disk.lie();
        let outcome = std::panic::catch_unwind(|| cut(*seed, &disk));
        !matches!(outcome, Ok(Ok(())))
    });
    assert!(lost.count() > 10, "the check can fail");
}

#[test]
fn closing_leaves_the_database_and_nothing_else() {
    for seed in 0..50 {
        let disk = Disk::empty();
        disk.set_len(BLOCKS * BLOCK as u64).unwrap();
        let journaled = open(disk.clone()).unwrap();
        let (committed, _) = play(&journaled, &mut StdRng::seed_from_u64(seed));
        journaled.close().unwrap();
        assert!(content(&disk) == committed);
    }
}

#[test]
fn every_operation_may_fail_and_what_was_committed_is_there_when_it_is_opened_again() {
    let (mut operation, mut reached) = (0, true);
    while reached {
        operation += 1;
        let disk = Disk::empty();
        disk.set_len(BLOCKS * BLOCK as u64).unwrap();
        disk.sync_data().unwrap();
        disk.plan(When::Operation(disk.count().operations + operation), Fault::Once(5));
        let journaled = open(disk.clone()).unwrap();
        let mut random = StdRng::seed_from_u64(operation % 16);
        let (committed, next) = play(&journaled, &mut random);
        reached = disk.has_struck();
        assert!(content(&journaled).len() >= BLOCK, "reading goes on");
        let _ = journaled.close();
        assert!(holds(&disk, &committed) || holds(&disk, &next), "operation {operation}");
        operation += operation / 8;
    }
    assert!(operation > 100, "{operation}");
}

#[test]
fn a_thread_beside_leaves_the_same_as_whoever_commits() {
    for seed in 0..20 {
        let disk = Disk::empty();
        disk.set_len(BLOCKS * BLOCK as u64).unwrap();
        let journaled = Journaled::open(disk.clone(), Checkpoints::Beside, SIZES).unwrap();
        let (committed, _) = play(&journaled, &mut StdRng::seed_from_u64(seed));
        drop(journaled);
        assert!(holds(&disk, &committed), "as after a crash");
    }
}
