//! A frame: one commit as it stands in the journal, the blocks that it wrote in one piece.
//!
//! A frame begins with its head: what it is, its number, the length that the database has with it,
//! a checksum, and the numbers of its blocks; then come the blocks. It is whole or it is not there.

use std::collections::HashMap;

/// The unit in which a database is written, in bytes.
pub(super) const BLOCK: usize = 4_096;

const MAGIC: [u8; 8] = *b"llframe1";
const CHECKSUM_AT: usize = 32;
const NUMBERS_AT: usize = 40;

/// Bytes of the head of a frame with so many blocks. It grows in doubles, so that a frame that is
/// being written seldom has to be moved behind a longer head.
fn head_bytes(blocks: usize) -> usize {
    (NUMBERS_AT + 8 * blocks).div_ceil(BLOCK).next_power_of_two() * BLOCK
}

/// Bytes of a frame with so many blocks.
pub(super) fn frame_bytes(blocks: usize) -> usize {
    head_bytes(blocks) + blocks * BLOCK
}

/// The blocks of the commit that is under way.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The numbers of the blocks, in the order in which they stand here.
    numbers: Vec<u64>,
    places: HashMap<u64, usize>,
    /// Room for the head, then the blocks.
    bytes: Vec<u8>,
}

impl Frame {
    /// One without blocks.
    pub(super) fn new() -> Self {
        Self { numbers: Vec::new(), places: HashMap::new(), bytes: vec![0; head_bytes(0)] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// A block that was written since the last commit.
    pub(super) fn get(&self, number: u64) -> Option<&[u8]> {
        let at = head_bytes(self.numbers.len()) + self.places.get(&number)? * BLOCK;
        Some(&self.bytes[at..at + BLOCK])
    }

    /// The place of a block to write to; zeros, or what was written since the last commit.
    pub(super) fn get_mut(&mut self, number: u64) -> &mut [u8] {
        let place = self.places.get(&number).copied().unwrap_or_else(|| self.add(number));
        let at = head_bytes(self.numbers.len()) + place * BLOCK;
        &mut self.bytes[at..at + BLOCK]
    }

    fn add(&mut self, number: u64) -> usize {
        let (place, room) = (self.numbers.len(), head_bytes(self.numbers.len()));
        self.numbers.push(number);
        self.places.insert(number, place);
        let wanted = head_bytes(place + 1);
        if wanted > room {
            self.bytes.splice(0..0, std::iter::repeat_n(0, wanted - room));
        }
        self.bytes.resize(frame_bytes(place + 1), 0);
        place
    }

    /// Forgets the blocks from this number on.
    pub(super) fn truncate(&mut self, end: u64) {
        if self.numbers.iter().all(|number| *number < end) {
            return;
        }
        let mut rest = Self::new();
        for &number in self.numbers.iter().filter(|number| **number < end) {
            let block = self.get(number).expect("its number is here");
            rest.get_mut(number).copy_from_slice(block);
        }
        *self = rest;
    }

    /// Forgets all blocks, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.places.clear();
        self.bytes.truncate(head_bytes(0));
    }

    /// Writes the head. `length` is that of the database with this commit, in bytes.
    pub(super) fn finish(&mut self, seq: u64, length: u64) {
        let numbers = self.numbers.len() as u64;
        for (at, field) in [(8, seq), (16, length), (24, numbers)] {
            self.bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        self.bytes[..8].copy_from_slice(&MAGIC);
        let room = &mut self.bytes[NUMBERS_AT..head_bytes(self.numbers.len())];
        room.fill(0);
        for (field, number) in room.chunks_exact_mut(8).zip(&self.numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&self.bytes);
        self.bytes[CHECKSUM_AT..NUMBERS_AT].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The frame as it is written, once its head is.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of each block, and where it stands in the frame.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        let head = head_bytes(self.numbers.len());
        let places = (0_u64..).map(move |place| (head as u64) + place * BLOCK as u64);
        self.numbers.iter().copied().zip(places)
    }
}

/// The checksum of all but its own field.
fn checksum(frame: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..CHECKSUM_AT]);
    hasher.update(&frame[NUMBERS_AT..]);
    u64::from(hasher.finalize())
}

/// What the first block of a frame tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the commit.
    pub(super) seq: u64,
    /// The length of the database with it, in bytes.
    pub(super) length: u64,
    /// How many blocks it wrote.
    blocks: usize,
}

impl Head {
    /// Reads it, if a frame begins here.
    pub(super) fn read(block: &[u8]) -> Option<Self> {
        let field = |at| field(block, at);
        let blocks = usize::try_from(field(24)?).ok()?;
        let head = Self { seq: field(8)?, length: field(16)?, blocks };
        // Anything may stand where no frame is; a bound keeps the sums below in range.
        (block.starts_with(&MAGIC) && blocks < usize::MAX / BLOCK / 8).then_some(head)
    }

    /// Bytes of the frame.
    pub(super) fn frame_bytes(&self) -> usize {
        frame_bytes(self.blocks)
    }

    /// The number of each block, and where it stands in the frame, if that is whole.
    pub(super) fn blocks(&self, frame: &[u8]) -> Option<Vec<(u64, u64)>> {
        if frame.len() != self.frame_bytes() || field(frame, CHECKSUM_AT)? != checksum(frame) {
            return None;
        }
        let head = head_bytes(self.blocks);
        let blocks = (0..self.blocks).map(|place| {
            Some((field(frame, NUMBERS_AT + 8 * place)?, (head + place * BLOCK) as u64))
        });
        blocks.collect()
    }
}

/// A number in little-endian order.
pub(super) fn field(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(numbers: &[u64]) -> Frame {
        let mut frame = Frame::new();
        for number in numbers {
            frame.get_mut(*number).fill(u8::try_from(number % 251).unwrap());
        }
        frame
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_and_a_changed_bit_is_seen(
            numbers in proptest::collection::vec(0..2_000u64, 1..1_200),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut frame = frame(&numbers);
            frame.finish(7, 1 << 20);
            let head = Head::read(frame.bytes()).unwrap();
            prop_assert_eq!((head.seq, head.length), (7, 1 << 20));
            let blocks = head.blocks(frame.bytes()).unwrap();
            prop_assert_eq!(&blocks, &frame.blocks().collect::<Vec<_>>());
            for (number, at) in blocks {
                let at = usize::try_from(at).unwrap();
                prop_assert_eq!(&frame.bytes()[at..at + BLOCK], frame.get(number).unwrap());
                prop_assert_eq!(u64::from(frame.bytes()[at]), number % 251);
            }
            let mut changed = frame.bytes().to_vec();
            let bit = bit.index(changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            let whole = Head::read(&changed).and_then(|head| head.blocks(&changed));
            prop_assert_eq!(whole, None);
        }

        #[test]
        fn what_is_cut_off_is_forgotten_and_the_rest_stays(end in 0..40u64) {
            let mut cut = frame(&[30, 1, 20, 39, 0]);
            cut.truncate(end);
            for number in 0..40 {
                let whole = frame(&[30, 1, 20, 39, 0]);
                prop_assert_eq!(cut.get(number), whole.get(number).filter(|_| number < end));
            }
        }
    }

    #[test]
    fn a_cleared_frame_is_as_a_new_one() {
        let mut used = frame(&(0..1_500).collect::<Vec<_>>());
        used.finish(1, 2);
        used.clear();
        assert!(used.is_empty());
        used.get_mut(3)[0] = 9;
        let mut new = Frame::new();
        new.get_mut(3)[0] = 9;
        used.finish(4, 5);
        new.finish(4, 5);
        assert_eq!(used.bytes(), new.bytes());
    }
}
