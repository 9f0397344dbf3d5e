//! The log by itself, on a disk that loses its power: what was appended and is not in the database
//! is found, in order, with nothing left out.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::store::redb::tests::disk::Disk;

const LAYOUT: Layout = Layout { segment_bytes: 8 * BLOCK };

fn open(disk: &Disk) -> io::Result<(Log, Vec<Vec<u8>>)> {
    Log::open(Arc::new(disk.clone()), LAYOUT)
}

fn made() -> Disk {
    let disk = Disk::empty();
    LAYOUT.make(&disk).unwrap();
    disk
}

/// Some bytes that tell the number of their frame.
fn payload(number: u64, random: &mut StdRng) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(random.random_range(8..9_000), u8::try_from(number % 251).unwrap());
    payload
}

fn number_of(payload: &[u8]) -> u64 {
    field(payload, 0).unwrap()
}

/// What was done with a log.
#[derive(Debug, Default)]
struct Done {
    /// The number of the last payload whose appending was answered.
    appended: u64,
    /// The number of the last one that is in the database.
    merged: u64,
}

/// Opens a log as a store does, and appends until the disk fails.
fn play(disk: &Disk, done: &mut Done, random: &mut StdRng) -> io::Result<()> {
    let (mut log, payloads) = open(disk)?;
    // What was being appended when the power went may be there or not.
    let last = payloads.last().map_or(done.merged, |payload| number_of(payload));
    done.appended = done.appended.max(last);
    done.merged = done.appended;
    log.reset()?;
    let mut frozen: Option<(log::Sealed, u64)> = None;
    for _ in 0..200 {
        let payload = payload(done.appended + 1, random);
        if !log.has_room(&payload) {
            if let Some((sealed, merged)) = frozen.take() {
                done.merged = merged;
                sealed.release()?;
            }
            frozen = Some((log.turn(), done.appended));
        }
        log.append(&payload)?;
        done.appended += 1;
        if random.random_bool(0.2)
            && let Some((sealed, merged)) = frozen.take()
        {
            done.merged = merged;
            sealed.release()?;
        }
    }
    Ok(())
}

/// What is wrong with what is found on a disk.
fn fault(disk: &Disk, done: &Done) -> Option<String> {
    let (_, payloads) = match open(disk) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let numbers: Vec<u64> = payloads.iter().map(|payload| number_of(payload)).collect();
    let (first, last) = (numbers.first().copied(), numbers.last().copied());
    let follow = numbers.is_sorted_by(|number, next| number + 1 == *next);
    let begins = first.is_none_or(|first| first <= done.merged + 1);
    let ends = match last {
        Some(last) => last == done.appended || last == done.appended + 1,
        None => done.merged == done.appended,
    };
    (!follow || !begins || !ends).then(|| format!("{done:?}, found {numbers:?}"))
}

/// Cuts the power over and over, also while the log is opened.
fn cut(seed: u64, mut disk: Disk) -> Option<String> {
    let (mut random, mut done) = (StdRng::seed_from_u64(seed), Done::default());
    for _ in 0..10 {
        disk.cut_after(random.random_range(0..60));
        let _ = play(&disk, &mut done, &mut random);
        disk = disk.after_the_cut(&mut random);
        if let Some(fault) = fault(&disk, &done) {
            return Some(format!("seed {seed}: {fault}"));
        }
    }
    None
}

#[test]
fn what_was_appended_survives_power_cuts_in_order() {
    for seed in 0..300 {
        assert_eq!(cut(seed, made()), None);
    }
}

#[test]
fn a_disk_that_lies_about_flushing_loses_what_was_appended() {
    let lost = (0..40).filter(|seed| {
        let disk = made();
        disk.lie();
        cut(*seed, disk).is_some()
    });
    assert!(lost.count() > 10, "the check can fail");
}

#[test]
fn small_payloads_lie_close_together() {
    let (mut log, _) = open(&made()).unwrap();
    for number in 1..=100_u64 {
        log.append(&number.to_le_bytes()).unwrap();
    }
    assert_eq!(log.used_bytes(), BLOCK + 100 * 40);
}

#[test]
fn a_large_piece_of_the_database_is_flushed_by_and_by() {
    let disk = Disk::empty();
    let part = DatabasePart::new(Arc::new(disk.clone()), 0);
    let flushes = || disk.count().flushes;
    let pages = STORE_FLUSH_BYTES / BLOCK;
    let write = |page: u64| part.write(page * BLOCK, &[1; 4_096]).unwrap();
    for page in 0..3 * pages {
        assert_eq!(flushes(), page / pages, "page {page}");
        write(page);
    }
    (1..pages).for_each(write);
    part.sync_data().unwrap();
    (1..pages).for_each(write);
    assert_eq!(flushes(), 4, "what was flushed when it was asked for does not count");
}

#[test]
fn a_frame_or_a_mark_that_is_damaged_is_told_if_more_follows() {
    let (disk, mut random) = (made(), StdRng::seed_from_u64(1));
    let (mut log, _) = open(&disk).unwrap();
    let mut places = vec![LAYOUT.segment_at(0)];
    for number in 1..=4 {
        places.push(LAYOUT.segment_at(0) + log.used_bytes());
        log.append(&payload(number, &mut random)[..8]).unwrap();
    }
    let flip = |place: usize| {
        let mut byte = [0];
        let at = places[place] + 9;
        StorageBackend::read(&disk, at, &mut byte).unwrap();
        StorageBackend::write(&disk, at, &[byte[0] ^ 4]).unwrap();
    };
    let kind = |found: io::Result<(Log, Vec<Vec<u8>>)>| found.map(|found| found.1.len());
    for place in 0..4 {
        flip(place);
        let error = kind(open(&disk)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "place {place}");
        flip(place);
    }
    flip(4);
    assert_eq!(kind(open(&disk)).unwrap(), 3, "the last one may have been cut");
}

#[test]
fn a_payload_that_looks_like_a_frame_is_none() {
    let forged = |seq: u64| {
        let mut frame = b"llframe1".to_vec();
        frame.extend_from_slice(&seq.to_le_bytes());
        frame.extend_from_slice(&0_u64.to_le_bytes());
        let checksum = crc32fast::hash(&frame);
        frame.extend_from_slice(&u64::from(checksum).to_le_bytes());
        frame
    };
    for forged in [forged(1 << 40), forged(5)] {
        let disk = made();
        let (mut log, _) = open(&disk).unwrap();
        log.append(&forged).unwrap();
        log.append(&forged).unwrap();
        let (mut log, found) = open(&disk).unwrap();
        assert_eq!(found, [&forged[..], &forged[..]]);
        log.reset().unwrap();
        log.append(&forged[..24]).unwrap();
        let found = open(&disk).unwrap().1;
        assert_eq!(found, [&forged[..24]], "what lies behind it is of a former use");
    }
}

#[test]
fn a_header_that_is_damaged_is_no_header() {
    let disk = made();
    assert_eq!(Form::of(&disk).unwrap(), Form::Store(LAYOUT));
    for at in 0..HEADER_BYTES as u64 {
        let disk = made();
        let mut byte = [0];
        StorageBackend::read(&disk, at, &mut byte).unwrap();
        StorageBackend::write(&disk, at, &[byte[0] ^ 1]).unwrap();
        assert!(Form::of(&disk).is_err(), "{at}");
    }
}
