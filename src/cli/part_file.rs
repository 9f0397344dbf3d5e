//! A file that a command writes: whole, or not there.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};
use crate::store::redb::fresh_file;

/// A file that has another name until it is complete, and is removed if it never is.
pub(super) struct PartFile {
    writer: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
}

impl PartFile {
    /// Begins one that replaces none.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            let problem = format!("{}: exists already; choose another name", path.display());
            return Err(Failure::new(Exit::Failure, problem));
        }
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let file = fresh_file(&part).map_err(|error| cannot_write(&part, &error))?;
        Ok(Self { writer: BufWriter::new(file), part, path: path.to_owned() })
    }

    /// Writes on.
    pub(super) fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(text).map_err(|error| cannot_write(&self.part, &error))
    }

    /// Gives it its name, once it is on the disk.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let written = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        let named = written.and_then(|()| std::fs::rename(&self.part, &self.path));
        named.map_err(|error| cannot_write(&self.path, &error))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // Gone already if it was completed.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("{}: cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_complete_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.csv");
        let mut file = PartFile::create(&path).unwrap();
        file.write(b"half").unwrap();
        assert!(PartFile::create(&path).is_err(), "another run is writing it");
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut file = PartFile::create(&path).unwrap();
        file.write(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(PartFile::create(&path).is_err(), "what is there is not replaced");
    }
}
