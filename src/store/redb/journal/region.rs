//! The place of the journal: behind the database, in the same file.
//!
//! ```text
//! | database | segment | segment | trailer |
//! ```
//!
//! The trailer tells where the segments are. It is one sector, so it is written whole or not at
//! all, and as the file ends with it, the file is longer than its database only while it is there.
//! Frames are appended to one segment while those of the other are brought to their places.

use std::collections::BTreeMap;
use std::io;

use super::Medium;
use super::frame::{BLOCK, Head, field};
use crate::limits::{JOURNAL_AHEAD_BYTES, JOURNAL_CHECKPOINT_BYTES_MIN, JOURNAL_SEGMENT_BYTES};

const MAGIC: [u8; 8] = *b"lljourn1";
/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// Number of a block → where it stands in the file.
pub(super) type Blocks = BTreeMap<u64, u64>;

/// How large the parts of a journal are.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::redb) struct Sizes {
    /// A segment, if no frame needs a larger one, in bytes.
    pub(in crate::store::redb) segment_bytes: u64,
    /// The least that is gathered before it is brought to its place, in bytes.
    pub(in crate::store::redb) checkpoint_bytes_min: u64,
    /// What is written ahead with zeros at a time, in bytes.
    pub(in crate::store::redb) ahead_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            segment_bytes: JOURNAL_SEGMENT_BYTES,
            checkpoint_bytes_min: JOURNAL_CHECKPOINT_BYTES_MIN,
            ahead_bytes: JOURNAL_AHEAD_BYTES,
        }
    }
}

/// Where the segments are, and how full.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// The length of the database when the journal was made, in bytes.
    length: u64,
    segment_bytes: u64,
    /// Which of the two segments is appended to.
    active: u64,
    /// How much of it is in use.
    tail: u64,
    /// How much of each segment has been written before: there, a flush has nothing to note about
    /// the file but its bytes.
    written: [u64; 2],
    /// The number of the next frame.
    next_seq: u64,
}

/// What a segment was found to hold.
struct Segment {
    first_seq: u64,
    last_seq: u64,
    length: u64,
    blocks: Blocks,
    /// Where its last frame begins, and where it ends, from the start of the segment.
    last: (u64, u64),
}

/// What a journal was found to hold.
pub(super) struct Found {
    pub(super) region: Region,
    /// The length of the database after the last commit, if there is one.
    pub(super) length: u64,
    /// What the last frames wrote.
    pub(super) active: Blocks,
    /// What those before them wrote, which may not be at its place.
    pub(super) sealed: Blocks,
}

impl Region {
    /// Makes room for a journal behind a database of this length.
    pub(super) fn make(
        medium: &impl Medium,
        length: u64,
        frame_bytes: usize,
        sizes: Sizes,
    ) -> io::Result<Self> {
        let wanted = (frame_bytes as u64).next_multiple_of(BLOCK as u64);
        let region = Self::new(length, sizes.segment_bytes.max(wanted));
        medium.write_through(region.trailer_at(), &region.trailer(true))?;
        // From here on frames are looked for when the file is opened; what lies before the trailer
        // is a hole, so there are none yet.
        Ok(region)
    }

    fn new(length: u64, segment_bytes: u64) -> Self {
        Self { length, segment_bytes, active: 0, tail: 0, written: [0; 2], next_seq: 1 }
    }

    /// Makes the journal one that is not looked at any more, and then the file as long as its
    /// database. Everything in it must be at its place.
    pub(super) fn remove(&self, medium: &impl Medium) -> io::Result<()> {
        medium.write_through(self.trailer_at(), &self.trailer(false))?;
        // From here on the frames mean nothing; if we die now, opening shortens the file.
        self.cut_off(medium)
    }

    fn cut_off(&self, medium: &impl Medium) -> io::Result<()> {
        medium.set_len(self.length)?;
        medium.sync_data()
    }

    /// Reads the journal of a file, if it has one.
    pub(super) fn find(medium: &impl Medium) -> io::Result<Option<Found>> {
        let Some(at) = medium.len()?.checked_sub(SECTOR as u64) else { return Ok(None) };
        let mut trailer = [0; SECTOR];
        medium.read(at, &mut trailer)?;
        let (Some(length), Some(segment_bytes)) = (field(&trailer, 8), field(&trailer, 16)) else {
            return Ok(None);
        };
        let mut region = Self::new(length, segment_bytes);
        if at != region.trailer_at() {
            return Ok(None);
        }
        if trailer == region.trailer(false) {
            region.cut_off(medium)?;
        }
        if trailer != region.trailer(true) {
            return Ok(None);
        }
        let found = [region.scan(medium, 0)?, region.scan(medium, 1)?];
        let seq = |segment: &Option<Segment>| segment.as_ref().map(|segment| segment.last_seq);
        region.active = u64::from(seq(&found[1]) > seq(&found[0]));
        let [mut older, mut newer] = found;
        if region.active == 0 {
            std::mem::swap(&mut older, &mut newer);
        }
        let Some(newer) = newer else {
            let found = Found { length, region, active: Blocks::new(), sealed: Blocks::new() };
            return Ok(Some(found));
        };
        if older.as_ref().is_some_and(|older| older.last_seq + 1 != newer.first_seq) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the journal has a gap"));
        }
        region.rewrite(medium, newer.last)?;
        region.tail = newer.last.1;
        region.next_seq = newer.last_seq + 1;
        Ok(Some(Found {
            region,
            length: newer.length,
            active: newer.blocks,
            sealed: older.map(|older| older.blocks).unwrap_or_default(),
        }))
    }

    /// Writes the last frame again. When a flush fails, what it could not write may still be read,
    /// until the power goes; what is built upon must be on the disk.
    fn rewrite(&self, medium: &impl Medium, (from, to): (u64, u64)) -> io::Result<()> {
        let mut frame = vec![0; index(to - from)?];
        let at = self.segment_at(self.active) + from;
        medium.read(at, &mut frame)?;
        medium.write_through(at, &frame)
    }

    /// Reads the frames of a segment that follow each other from its start.
    fn scan(&self, medium: &impl Medium, segment: u64) -> io::Result<Option<Segment>> {
        let (start, mut at) = (self.segment_at(segment), 0);
        let mut found: Option<Segment> = None;
        let (mut head, mut frame) = ([0; BLOCK], Vec::new());
        while at + BLOCK as u64 <= self.segment_bytes {
            medium.read(start + at, &mut head)?;
            let Some(head) = Head::read(&head) else { break };
            let end = at + head.frame_bytes() as u64;
            let follows = found.as_ref().is_none_or(|found| found.last_seq + 1 == head.seq);
            if !follows || end > self.segment_bytes {
                break;
            }
            frame.resize(head.frame_bytes(), 0);
            medium.read(start + at, &mut frame)?;
            let Some(blocks) = head.blocks(&frame) else { break };
            let segment = found.get_or_insert_with(|| Segment {
                first_seq: head.seq,
                last_seq: head.seq,
                length: head.length,
                blocks: Blocks::new(),
                last: (at, end),
            });
            segment
                .blocks
                .extend(blocks.into_iter().map(|(number, place)| (number, start + at + place)));
            (segment.last_seq, segment.length) = (head.seq, head.length);
            segment.last = (at, end);
            at = end;
        }
        Ok(found)
    }

    /// The trailer of a journal that is in use, or is not any more.
    fn trailer(&self, in_use: bool) -> [u8; SECTOR] {
        let mut trailer = [0; SECTOR];
        trailer[..8].copy_from_slice(&MAGIC);
        for (at, field) in [(8, self.length), (16, self.segment_bytes), (24, u64::from(in_use))] {
            trailer[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let checksum = u64::from(crc32fast::hash(&trailer[..32]));
        trailer[32..40].copy_from_slice(&checksum.to_le_bytes());
        trailer
    }

    fn trailer_at(&self) -> u64 {
        self.segment_at(0).saturating_add(self.segment_bytes.saturating_mul(2))
    }

    fn segment_at(&self, segment: u64) -> u64 {
        let start = self.length.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        start + segment * self.segment_bytes
    }

    /// The number of the next frame.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// How much of the active segment is in use, in bytes.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether a frame of this length fits into a segment.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        bytes as u64 <= self.segment_bytes
    }

    /// Whether it fits behind those that are there.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.tail + bytes as u64 <= self.segment_bytes
    }

    /// Goes on with the other segment, whose frames have been brought to their places.
    pub(super) fn turn(&mut self, medium: &impl Medium) -> io::Result<()> {
        self.active = 1 - self.active;
        self.tail = 0;
        // Without their first one, the frames that were there are not looked at any more. While
        // they are overwritten some of them may be whole, and others not.
        medium.write_through(self.segment_at(self.active), &[0; BLOCK])
    }

    /// Appends a frame for which there is room; where it stands. It is durable then.
    pub(super) fn append(
        &mut self,
        medium: &impl Medium,
        frame: &[u8],
        sizes: Sizes,
    ) -> io::Result<u64> {
        let at = self.segment_at(self.active);
        let end = self.tail + frame.len() as u64;
        let written = &mut self.written[usize::from(self.active == 1)];
        if *written < end {
            // Where a file grows, each flush has to note that, too. So room is made in larger
            // steps.
            let from = (*written).max(self.tail);
            let to = (end + sizes.ahead_bytes).min(self.segment_bytes);
            medium.write_through(at + from, &vec![0; index(to - from)?])?;
            *written = to;
        }
        medium.write_through(at + self.tail, frame)?;
        let place = at + self.tail;
        self.tail = end;
        self.next_seq += 1;
        Ok(place)
    }
}

fn index(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory.into())
}
