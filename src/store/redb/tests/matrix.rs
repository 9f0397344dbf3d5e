//! The crash matrix: the power goes at every flush of the script, right before it has an effect and
//! right after, and what is found on the disk is compared with the model.
//!
//! Of what was not flushed, nothing, everything or a random part survives, and further cuts come
//! while the store recovers. `LEADLOOP_VARIANTS=200 cargo test --release --lib crash_matrix --
//! --nocapture` looks at so many disks for each flush.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Count, Disk, Fault, When};
use super::script::Player;

const VARIANTS_IN_CI: u64 = 3;

/// How many disks are looked at for each flush.
fn variants() -> u64 {
    let wanted = std::env::var_os("LEADLOOP_VARIANTS");
    wanted.map_or(VARIANTS_IN_CI, |wanted| wanted.to_str().unwrap().parse().unwrap())
}

/// What the script does to a disk, from opening the store to closing it.
pub(super) async fn count() -> Count {
    let disk = Disk::new();
    let (store, mut player) = (disk.store(), Player::new());
    assert_eq!(player.play(&store).await, Ok(None));
    drop(store);
    disk.count()
}

#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    cuts_in_recovery: u64,
    broken: Vec<String>,
}

/// Plays the script until the power goes, and looks at what may be found on the disk then.
async fn cut(disk: &Disk, flush: u64, fault: Fault, tally: &mut Tally) {
    disk.plan(When::Flush(flush), fault);
    let mut player = Player::new();
    if let Ok(store) = disk.try_store()
        && let Err(wrong) = player.play(&store).await
    {
        tally.broken.push(wrong);
    }
    assert!(disk.has_struck(), "flush {flush} was not reached");
    for variant in 0..variants() {
        let mut random = StdRng::seed_from_u64(flush * 1_000 + variant);
        let keep = match variant {
            0 => 0.0,
            1 => 1.0,
            _ => random.random_range(0.05..0.95),
        };
        let mut found = disk.after_keeping(keep, &mut random);
        tally.cuts += 1;
        for _ in 0..variant % 3 {
            found.cut_after(random.random_range(0..12));
            drop(found.try_store());
            tally.cuts_in_recovery += 1;
            found = found.after_the_cut(&mut random);
        }
        if let Err(wrong) = examine(&found, player.answered).await {
            tally.broken.push(format!("flush {flush}, {fault:?}, variant {variant}: {wrong}"));
        }
    }
}

/// Opens what was found, compares it with the model, and plays the rest of the script.
async fn examine(found: &Disk, answered: usize) -> Result<(), String> {
    let mut player = Player::after(answered).await;
    let store = found.try_store().map_err(|error| format!("it does not open: {error}"))?;
    player.compare(&store).await?;
    if let Some(error) = player.play(&store).await? {
        return Err(format!("it does not go on: {error}"));
    }
    player.compare(&store).await
}

#[tokio::test]
async fn the_crash_matrix_finds_nothing_lost_and_nothing_half_done_at_any_flush() {
    let flushes = count().await.flushes;
    let mut tally = Tally::default();
    for flush in 1..=flushes {
        for fault in [Fault::PowerCut, Fault::PowerCutAfter] {
            cut(&Disk::new(), flush, fault, &mut tally).await;
        }
    }
    println!("{flushes} of {flushes} flushes: {tally:?}");
    assert_eq!(tally.broken, [""; 0]);
}

#[tokio::test]
async fn the_crash_matrix_breaks_a_disk_that_lies_about_flushing() {
    let flushes = count().await.flushes;
    let (mut runs, mut broken) = (0, 0);
    for flush in (1..=flushes).step_by(4) {
        let mut tally = Tally::default();
        cut(&Disk::that_lies(), flush, Fault::PowerCut, &mut tally).await;
        runs += 1;
        broken += u64::from(!tally.broken.is_empty());
    }
    println!("{broken} of {runs} flushes are found to lie");
    assert!(broken * 4 > runs * 3, "the check can fail, and does: {broken} of {runs}");
}
