//! Any input gives a named error or the right samples: no panic, no hang.
//!
//! Run as a test it tries some thousand inputs; `cargo bolero test --package batchramp-core any_input`
//! (of the crate `cargo-bolero`) searches for others without end, guided by coverage.

use std::sync::Arc;

use batchramp_core::{Batches, Boundary, Error, MAX_THREADS, Run, advance, pieces, share};
use bolero::{TypeGenerator, check};

/// The most samples that a test's memory should hold in a batch.
const FEW: u64 = 1 << 12;
/// The first sample where they are not counted from zero.
const SHIFT: i64 = 1 << 40;

#[derive(Debug, TypeGenerator)]
struct Input {
    num_samples: Number,
    seed: u64,
    order: u8,
    boundary: u8,
    threads: Number,
    shifted: bool,
    batches: Vec<Asked>,
}

#[derive(Debug, TypeGenerator)]
struct Asked {
    position: Number,
    batch_size: Number,
    until: Number,
    rank: Option<u8>,
    world_size: u8,
    shares: u8,
    micro_batch: Option<Number>,
}

/// Numbers of every size, and the ones at which something changes.
#[derive(Debug, TypeGenerator)]
enum Number {
    Small(u8),
    Middle(u16),
    PowerOfTwo { exponent: u8, off_by: i8 },
    Any(u64),
}

impl Number {
    fn get(&self) -> u64 {
        match *self {
            Self::Small(number) => number.into(),
            Self::Middle(number) => number.into(),
            Self::PowerOfTwo { exponent, off_by } => {
                (1_u64 << (exponent % 64)).saturating_add_signed(off_by.into())
            }
            Self::Any(number) => number,
        }
    }
}

fn run(input: &Input) -> Result<(), Error> {
    let order =
        ["exact", "bijective", "sequential", "auto", "random"][usize::from(input.order % 5)];
    let boundary = ["keep", "drop", "wrap", "pad"][usize::from(input.boundary % 4)];
    let num_samples = match order {
        // An exact order takes the memory that it says.
        "exact" | "auto" => input.num_samples.get() % (1 << 14),
        _ => input.num_samples.get(),
    };
    let boundary = Boundary::resolve(boundary)?;
    let threads = usize::try_from(input.threads.get()).unwrap_or(usize::MAX);
    let mut batches = Batches::new(num_samples, input.seed, order, boundary, threads)?;
    if input.shifted && num_samples <= FEW {
        let indices: Vec<i64> = (SHIFT..).take(usize::try_from(num_samples).unwrap_or(0)).collect();
        batches = batches.with_indices(&indices)?;
    }
    let batches = Arc::new(batches);
    assert!((1..=1 << 45).contains(&num_samples) && (1..=MAX_THREADS).contains(&threads));
    for asked in &input.batches {
        // An error ends this batch alone.
        let _ = deal(&batches, asked);
        let _ = lay(&batches, asked);
    }
    Ok(())
}

/// Draws the first batches of a run, and holds them against the stream itself.
fn deal(batches: &Arc<Batches>, asked: &Asked) -> Result<(), Error> {
    let (num_samples, size) = (batches.num_samples(), asked.batch_size.get());
    let start = batches.start(asked.position.get(), size)?;
    assert!(size >= 1 && size <= num_samples && start >= asked.position.get());
    let world_size = u64::from(asked.world_size);
    let rank = asked.rank.map(u64::from);
    let micro_batch = asked.micro_batch.as_ref().map(Number::get);
    let mut run = Run::new(
        Arc::clone(batches),
        start,
        size,
        asked.until.get(),
        rank,
        world_size,
        asked.shares.into(),
        micro_batch,
    )?;
    let mut before = None;
    for _ in 0..5 {
        let Some(positions) = run.next_positions()? else { break };
        let end = batches.end(run.start(), size)?;
        let begun = asked.shares > 0 && run.start() == start;
        assert!(run.start() < asked.until.get() || begun, "a batch begun is dealt out wholly");
        assert!(positions.start >= run.start());
        assert!(positions.start < positions.end && positions.end <= end);
        // Dealt out to all ranks, a second piece lies before the first ones of later ranks.
        assert!(before.replace(positions.clone()) != Some(positions.clone()), "none comes twice");
        let length = positions.end - positions.start;
        let longest = share(end - run.start(), 0, world_size)?.end;
        let most = micro_batch.unwrap_or(size);
        assert!(length <= most.min(run.longest()));
        let pieces = pieces(end - run.start(), world_size, most)?;
        assert!(longest.div_ceil(pieces) - length <= 1);
        if length <= FEW {
            let mut samples = vec![-1; usize::try_from(length).unwrap_or(0)];
            batches.fill(positions.start, &mut samples)?;
            let mut again = vec![-1; samples.len()];
            if batches.fill_at_once(positions.start, &mut again) {
                assert_eq!(samples, again);
            }
            let first = batches.indices().map_or(0, |indices| indices[0]);
            let within = |&sample: &i64| {
                u64::try_from(sample - first).is_ok_and(|place| place < num_samples)
            };
            assert!(samples.iter().all(within));
            if positions.start / num_samples == (positions.end - 1) / num_samples {
                samples.sort_unstable();
                assert!(samples.windows(2).all(|pair| pair[0] < pair[1]), "no sample comes twice");
            }
        }
    }
    Ok(())
}

/// Lays many batches at once: the next one begins where it is said to, or later.
fn lay(batches: &Batches, asked: &Asked) -> Result<(), Error> {
    let (position, size) = (asked.position.get(), asked.batch_size.get());
    let (num_samples, boundary) = (batches.num_samples(), batches.boundary());
    let until = asked.until.get();
    let (reached, update) =
        advance(num_samples, boundary, position, 0, size, Some(until), Some(1_000))?;
    assert!(reached >= position && update <= 1_000);
    assert!(reached >= until || update == 1_000);
    Ok(())
}

#[test]
fn any_input() {
    check!().with_iterations(20_000).with_type::<Input>().for_each(|input| {
        let _ = run(input);
    });
}
