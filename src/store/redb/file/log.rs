//! The log: frames that are appended to one segment while the rows of the other one are brought
//! into the database.
//!
//! Frames lie close together, or small commits would fill a segment with nothing. So a write may
//! touch a sector that holds the end of the frame before. It writes the same bytes there: a disk
//! that leaves an old or a new sector behind when its power goes leaves that frame whole.
//!
//! A segment begins with a mark, which says up to which number its frames are in the database by
//! now. The frames behind it count if their numbers are greater and follow each other. Nothing that
//! is not in the database yet is overwritten, and the mark is written before a segment is used
//! again: so no frame of its former use is taken for one of the new.

use std::io;
use std::sync::Arc;

use crate::limits::STORE_CHUNK_BYTES;

use super::{BLOCK, Layout, Medium, field, index};

const FRAME: [u8; 8] = *b"llframe1";
const MARK: [u8; 8] = *b"ll-mark1";
/// Where the fields of a frame's head stand, in bytes.
const SEQ_AT: usize = 8;
const LENGTH_AT: usize = 16;
const HEAD_BYTES: usize = 24;
/// The checksum is the last thing in a frame: one that was written in part does not count.
const CHECKSUM_BYTES: usize = 8;
/// What a frame's place and length are multiples of, in bytes.
const ALIGNMENT: u64 = 8;

/// The log of an open store.
#[derive(Debug)]
pub(in crate::store::redb) struct Log {
    medium: Arc<dyn Medium>,
    layout: Layout,
    /// Which of the two segments is appended to.
    active: usize,
    /// How much of it is in use, in bytes.
    tail: u64,
    /// The number of the frame that was written last.
    seq: u64,
    /// What is being written.
    frame: Vec<u8>,
    /// Whether the segment 1 was found to be older than 0.
    is_turned: bool,
}

/// A segment that is full enough, and whose rows are brought into the database.
#[derive(Debug)]
pub(in crate::store::redb) struct Sealed {
    medium: Arc<dyn Medium>,
    at: u64,
    seq: u64,
}

impl Sealed {
    /// Lets the segment be used again. Its rows must be durable in the database.
    pub(in crate::store::redb) fn release(&self) -> io::Result<()> {
        self.medium.write_through(self.at, &mark(self.seq))
    }
}

impl Log {
    /// Makes both segments of a new file empty.
    pub(super) fn make(medium: &dyn Medium, layout: Layout) -> io::Result<()> {
        [0, 1].into_iter().try_for_each(|number| medium.write(layout.segment_at(number), &mark(0)))
    }

    /// Opens the log of a file: what its frames hold that may not be in the database yet, in order.
    /// Nothing can be appended before [`Log::reset`].
    pub(in crate::store::redb) fn open(
        medium: Arc<dyn Medium>,
        layout: Layout,
    ) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let mut segments =
            [Segment::read(&*medium, layout, 0)?, Segment::read(&*medium, layout, 1)?];
        let is_turned = segments[1].first_seq < segments[0].first_seq;
        segments.sort_by_key(|segment| segment.first_seq);
        let (mut seq, mut payloads, mut expected) = (0, Vec::new(), None);
        for segment in segments {
            seq = seq.max(segment.last_seq);
            if segment.payloads.is_empty() {
                continue;
            }
            if expected.is_some_and(|expected| expected != segment.first_seq) {
                return Err(damaged("frames are missing in the middle of the log"));
            }
            expected = Some(segment.last_seq + 1);
            payloads.extend(segment.payloads);
        }
        let (active, tail, frame) = (0, BLOCK, Vec::new());
        Ok((Self { medium, layout, active, tail, seq, frame, is_turned }, payloads))
    }

    /// Empties the log. All that it holds must be durable in the database.
    pub(in crate::store::redb) fn reset(&mut self) -> io::Result<()> {
        let order = if self.is_turned { [1, 0] } else { [0, 1] };
        for number in order {
            // If we die between, the newer one is left, whose rows are the newest.
            self.sealed(number).release()?;
        }
        (self.active, self.tail) = (0, BLOCK);
        Ok(())
    }

    fn sealed(&self, number: usize) -> Sealed {
        let at = self.layout.segment_at(number);
        Sealed { medium: self.medium.clone(), at, seq: self.seq }
    }

    /// How much of the segment is in use, in bytes.
    pub(in crate::store::redb) fn used_bytes(&self) -> u64 {
        self.tail
    }

    /// The size of a segment, in bytes.
    pub(in crate::store::redb) fn segment_bytes(&self) -> u64 {
        self.layout.segment_bytes
    }

    /// Whether a payload can be appended to an empty segment.
    pub(in crate::store::redb) fn fits(&self, payload: &[u8]) -> bool {
        BLOCK + frame_bytes(payload.len() as u64) <= self.layout.segment_bytes
    }

    /// Whether a payload can be appended now.
    pub(in crate::store::redb) fn has_room(&self, payload: &[u8]) -> bool {
        self.tail + frame_bytes(payload.len() as u64) <= self.layout.segment_bytes
    }

    /// Appends a payload, for which there must be room.
    pub(in crate::store::redb) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        write_frame(&mut frame, self.seq + 1, payload);
        let at = self.layout.segment_at(self.active) + self.tail;
        let written = self.medium.write_through(at, &frame);
        self.tail += frame.len() as u64;
        self.seq += 1;
        self.frame = frame;
        // From here on the payload is durable; if we die now, opening finds it.
        written
    }

    /// Goes on in the other segment, which must have been released.
    pub(in crate::store::redb) fn turn(&mut self) -> Sealed {
        let sealed = self.sealed(self.active);
        (self.active, self.tail) = (1 - self.active, BLOCK);
        sealed
    }
}

/// What a segment was found to hold.
struct Segment {
    /// The number of its first frame.
    first_seq: u64,
    /// The highest number that it knows of.
    last_seq: u64,
    payloads: Vec<Vec<u8>>,
}

impl Segment {
    fn read(medium: &dyn Medium, layout: Layout, number: usize) -> io::Result<Self> {
        let (start, end) = (layout.segment_at(number), layout.segment_at(number + 1));
        let mut window = Window { medium, end, at: start, bytes: Vec::new(), from: 0 };
        let marked = read_mark(&mut window)?;
        window.skip(BLOCK);
        let mut segment = Self { first_seq: 0, last_seq: marked, payloads: Vec::new() };
        while let Some((seq, payload)) = read_frame(&mut window)? {
            let follows = if segment.payloads.is_empty() {
                seq > marked
            } else {
                seq == segment.last_seq + 1
            };
            if !follows {
                break;
            }
            if segment.payloads.is_empty() {
                segment.first_seq = seq;
            }
            segment.last_seq = seq;
            segment.payloads.push(payload.to_vec());
            let length = frame_bytes(payload.len() as u64);
            window.skip(length);
        }
        segment.check_rest(window)?;
        Ok(segment)
    }

    /// Refuses a segment that has a frame behind its end: what ended it was no power cut then, and
    /// frames that were answered are lost.
    fn check_rest(&self, mut rest: Window<'_>) -> io::Result<()> {
        // More than a segment can hold.
        let lost_max = rest.end - rest.at;
        while rest.at < rest.end {
            let found = read_frame(&mut rest)?;
            let lost = found.and_then(|(seq, _)| seq.checked_sub(self.last_seq));
            if lost.is_some_and(|lost| (1..=lost_max).contains(&lost)) {
                return Err(damaged("a frame in the middle of the log is damaged"));
            }
            // A frame of a former use may hold what looks like one.
            let step = found.map_or(ALIGNMENT, |(_, payload)| frame_bytes(payload.len() as u64));
            rest.skip(step);
        }
        Ok(())
    }
}

/// A part of a segment, of which a piece at a time is in memory.
struct Window<'m> {
    medium: &'m dyn Medium,
    end: u64,
    /// Where it begins.
    at: u64,
    /// What is read of it already, from a place on.
    bytes: Vec<u8>,
    from: usize,
}

impl Window<'_> {
    /// Its first bytes; `None` if it has not so many.
    fn first(&mut self, length: u64) -> io::Result<Option<&[u8]>> {
        if length > self.end - self.at {
            return Ok(None);
        }
        let length = index(length);
        if length > self.bytes.len() - self.from {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            self.bytes.resize(length.max(STORE_CHUNK_BYTES).min(left), 0);
            self.medium.read(self.at, &mut self.bytes)?;
            self.from = 0;
        }
        Ok(self.bytes.get(self.from..self.from + length))
    }

    /// Begins later.
    fn skip(&mut self, length: u64) {
        self.at += length;
        self.from = self.bytes.len().min(self.from + index(length));
    }
}

fn damaged(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A mark, which is smaller than what a disk writes whole or not at all.
fn mark(seq: u64) -> [u8; HEAD_BYTES] {
    let mut mark = [0; HEAD_BYTES];
    mark[..SEQ_AT].copy_from_slice(&MARK);
    mark[SEQ_AT..LENGTH_AT].copy_from_slice(&seq.to_le_bytes());
    let checksum = u64::from(crc32fast::hash(&mark[..LENGTH_AT]));
    mark[LENGTH_AT..].copy_from_slice(&checksum.to_le_bytes());
    mark
}

fn read_mark(segment: &mut Window<'_>) -> io::Result<u64> {
    let found = segment.first(HEAD_BYTES as u64)?.unwrap_or_default();
    let seq = field(found, SEQ_AT).filter(|seq| mark(*seq) == found);
    seq.ok_or_else(|| damaged("a mark of the log is damaged"))
}

fn frame_bytes(payload_bytes: u64) -> u64 {
    ((HEAD_BYTES + CHECKSUM_BYTES) as u64 + payload_bytes).next_multiple_of(ALIGNMENT)
}

fn write_frame(frame: &mut Vec<u8>, seq: u64, payload: &[u8]) {
    let bytes = index(frame_bytes(payload.len() as u64));
    frame.clear();
    frame.extend_from_slice(&FRAME);
    frame.extend_from_slice(&seq.to_le_bytes());
    frame.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    frame.extend_from_slice(payload);
    frame.resize(bytes - CHECKSUM_BYTES, 0);
    let checksum = u64::from(crc32fast::hash(frame));
    frame.extend_from_slice(&checksum.to_le_bytes());
}

/// The number and the payload of the frame that a window begins with, if it does and that is whole.
fn read_frame<'w>(window: &'w mut Window<'_>) -> io::Result<Option<(u64, &'w [u8])>> {
    let left = window.end - window.at;
    let Some(head) = window.first(HEAD_BYTES as u64)? else { return Ok(None) };
    let (Some(seq), Some(length)) = (field(head, SEQ_AT), field(head, LENGTH_AT)) else {
        return Ok(None);
    };
    if !head.starts_with(&FRAME) || length > left {
        return Ok(None);
    }
    let frame = window.first(frame_bytes(length))?;
    let Some((summed, checksum)) = frame.and_then(<[u8]>::split_last_chunk::<CHECKSUM_BYTES>)
    else {
        return Ok(None);
    };
    let is_whole = u64::from_le_bytes(*checksum) == u64::from(crc32fast::hash(summed));
    Ok(is_whole.then(|| (seq, &summed[HEAD_BYTES..HEAD_BYTES + index(length)])))
}
