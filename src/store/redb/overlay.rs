//! A database that is looked at and never changed.
//!
//! Opening a database, checking it and mending it after a crash all write to it. Here what is
//! written is kept in memory above what lies below, so that a file can be proven as it is, on a
//! medium that takes no writes too. It locks nothing: that is for whoever opens the file.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use crate::store::redb::file::Medium;

const BLOCK: u64 = 4_096;

/// Bytes above those of another backend, which is read only.
#[derive(Debug)]
pub(super) struct Overlay<B> {
    below: B,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    length: u64,
    /// How much of what lies below is still to be seen; it was cut there at least once.
    below_seen: u64,
    /// What was written, in whole blocks by number.
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl<B: StorageBackend> Overlay<B> {
    pub(super) fn new(below: B) -> io::Result<Self> {
        let length = below.len()?;
        let above = Above { length, below_seen: length, blocks: BTreeMap::new() };
        Ok(Self { below, above: Mutex::new(above) })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Above, &B) -> T) -> T {
        work(&mut self.above.lock().unwrap_or_else(PoisonError::into_inner), &self.below)
    }
}

impl Above {
    /// A piece of what lies below, with zeros where there is nothing.
    fn read_below(&self, below: &impl StorageBackend, at: u64, out: &mut [u8]) -> io::Result<()> {
        let seen = usize::try_from(self.below_seen.saturating_sub(at)).unwrap_or(usize::MAX);
        let (seen, rest) = out.split_at_mut(seen.min(out.len()));
        rest.fill(0);
        if seen.is_empty() { Ok(()) } else { below.read(at, seen) }
    }

    fn read(&self, below: &impl StorageBackend, at: u64, out: &mut [u8]) -> io::Result<()> {
        let end = at + out.len() as u64;
        if end > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(below, at, out)?;
        for (number, block) in self.blocks.range(at / BLOCK..end.div_ceil(BLOCK)) {
            let (first, last) = ((number * BLOCK).max(at), ((number + 1) * BLOCK).min(end));
            out[index(first - at)..index(last - at)]
                .copy_from_slice(&block[index(first - number * BLOCK)..][..index(last - first)]);
        }
        Ok(())
    }

    fn write(&mut self, below: &impl StorageBackend, at: u64, data: &[u8]) -> io::Result<()> {
        let end = at + data.len() as u64;
        for number in at / BLOCK..end.div_ceil(BLOCK) {
            if !self.blocks.contains_key(&number) {
                let mut block = vec![0; index(BLOCK)].into_boxed_slice();
                self.read_below(below, number * BLOCK, &mut block)?;
                self.blocks.insert(number, block);
            }
            let block = self.blocks.get_mut(&number).expect("it was put there above");
            let (first, last) = ((number * BLOCK).max(at), ((number + 1) * BLOCK).min(end));
            block[index(first - number * BLOCK)..][..index(last - first)]
                .copy_from_slice(&data[index(first - at)..index(last - at)]);
        }
        self.length = self.length.max(end);
        Ok(())
    }

    fn set_length(&mut self, below: &impl StorageBackend, length: u64) -> io::Result<()> {
        let cut_in_a_block = length < self.length && !length.is_multiple_of(BLOCK);
        if cut_in_a_block {
            // What is cut off must be zero if it grows again.
            let rest = vec![0; index(BLOCK - length % BLOCK)];
            self.write(below, length, &rest)?;
        }
        self.blocks.split_off(&length.div_ceil(BLOCK));
        self.below_seen = self.below_seen.min(length);
        self.length = length;
        Ok(())
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("it is within a slice")
}

impl<B: StorageBackend> Medium for Overlay<B> {}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|above, _| above.length))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|above, below| above.read(below, offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|above, below| above.set_length(below, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|above, below| above.write(below, offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Clone, Debug)]
    enum Operation {
        Write(u64, Vec<u8>),
        SetLength(u64),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (0..20_000u64, proptest::collection::vec(1..=255u8, 1..6_000))
                .prop_map(|(at, data)| Operation::Write(at, data)),
            (0..20_000u64).prop_map(Operation::SetLength),
        ]
    }

    fn bytes(backend: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; index(backend.len().unwrap())];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn it_reads_as_if_it_were_written_and_leaves_what_is_below(
            start in proptest::collection::vec(1..=255u8, 0..10_000),
            operations in proptest::collection::vec(operation(), 0..8),
        ) {
            let below = InMemoryBackend::new();
            below.set_len(start.len() as u64).unwrap();
            below.write(0, &start).unwrap();
            let (overlay, mut model) = (Overlay::new(below).unwrap(), start.clone());
            for operation in operations {
                match operation {
                    Operation::Write(at, data) => {
                        let end = index(at) + data.len();
                        model.resize(model.len().max(end), 0);
                        model[index(at)..end].copy_from_slice(&data);
                        overlay.write(at, &data).unwrap();
                    }
                    Operation::SetLength(length) => {
                        model.resize(index(length), 0);
                        overlay.set_len(length).unwrap();
                    }
                }
                prop_assert!(bytes(&overlay) == model);
            }
            prop_assert!(bytes(&overlay.below) == start);
        }
    }
}
