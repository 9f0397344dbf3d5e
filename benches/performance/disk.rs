//! The disk under measurement: a folder on it, what is copied there, and its own speed.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use leadloop::clock::{Random, SeededRandom};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::samples::{quantile, real};

/// File systems in memory, where flushing costs nothing.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];
const PAGE_BYTES: usize = 4_096;
const PAGES: u64 = 16_384;
const FLUSHES: usize = 2_000;

/// A folder of the benchmark's own on a real disk, gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: TempDir,
    file_system: String,
}

impl Disk {
    /// Makes the folder.
    ///
    /// # Errors
    /// If that is in memory: a flush would be free there, and every figure wrong.
    pub(crate) fn below(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file_system = file_system(&directory.canonicalize()?)?;
        ensure!(
            !IN_MEMORY.contains(&file_system.as_str()),
            "{} is a {file_system}, where a flush costs nothing: name a --directory on a disk",
            directory.display()
        );
        // PostgreSQL does not run as root, and has to get through to its own folder.
        let passable = Permissions::from_mode(0o711);
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("performance-").permissions(passable).tempdir_in(directory)?;
        Ok(Self { folder, file_system })
    }

    pub(crate) fn file_system(&self) -> &str {
        &self.file_system
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder for one run of a server.
    pub(crate) fn folder(&self) -> anyhow::Result<TempDir> {
        Ok(TempDir::new_in(self.folder.path())?)
    }

    /// Overwrites 4 KiB at random in a file of 64 MiB and flushes, again and again: the p50 of one
    /// such write in milliseconds, below which no durable answer of a lone client can come.
    pub(crate) fn flush_p50_ms(&self) -> anyhow::Result<f64> {
        let path = self.path("flushes");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        let page = [1; PAGE_BYTES];
        for number in 0..PAGES {
            file.write_all_at(&page, number * PAGE_BYTES as u64)?;
        }
        file.sync_all()?;
        let random = SeededRandom::new(1);
        let mut took_ms = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            let place = random.next_u64() % PAGES * PAGE_BYTES as u64;
            let started = Instant::now();
            file.write_all_at(&page, place)?;
            file.sync_data()?;
            took_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
        std::fs::remove_file(path)?;
        Ok(quantile(&mut took_ms, 0.5))
    }
}

/// Copies a file, and flushes the copy, so that writing it back disturbs nothing that follows.
pub(crate) fn copy_flushed(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::copy(from, to)?;
    Ok(File::open(to)?.sync_all()?)
}

/// What a file takes of the disk, in bytes: where nothing was written, it takes nothing.
pub(crate) fn taken_bytes(path: &Path) -> anyhow::Result<f64> {
    Ok(real(std::fs::metadata(path)?.blocks() * 512))
}

/// The type of the file system that a path is on: that of the mount point closest to it.
fn file_system(path: &Path) -> anyhow::Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("needs Linux's /proc")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let closest =
        mounts.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.len());
    Ok(closest.context("the disk is not mounted")?.1.to_owned())
}
