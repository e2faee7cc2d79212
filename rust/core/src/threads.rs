//! Work in blocks, on threads that a host lends or on a pool that is made once.
//!
//! Blocks are fixed by the data alone, and what they sum is added in their order: results do not
//! depend on the number of threads.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::{process, thread, vec};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Below as many coordinates a thread, waking it costs more than it saves.
const GRAIN: usize = 131_072;

/// Runs the work on so many threads at once, the caller's among them, and returns when all of them
/// are done with it; or returns false and has done nothing.
pub type Team = fn(threads: usize, work: &(dyn Fn() + Sync)) -> bool;

static TEAM: OnceLock<Team> = OnceLock::new();

/// Lends threads to all work from now on, in place of a pool's. The first team stays.
///
/// A host whose own threads spin between its calls leaves a pool's no core to run on.
pub fn lend_threads(team: Team) {
    let _ = TEAM.set(team);
}

/// The pool that the process made first, or made anew for more threads.
struct Pool {
    process: u32,
    threads: usize,
    workers: Arc<ThreadPool>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// A pool of at least so many threads, or none where this thread should go on alone.
///
/// A fork copies the memory but not the threads: a child makes a pool of its own, and never waits
/// for the lock, whose holder may be a thread that it does not have.
fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    let mut held = match POOL.try_lock() {
        Ok(held) => held,
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let process = process::id();
    if let Some(held) = held.as_ref()
        && held.process == process
        && held.threads >= threads
    {
        return Some(Arc::clone(&held.workers));
    }
    let name = |index| format!("batchramp-{index}");
    let made = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
    let workers = Arc::new(made.ok()?);
    let old = held.replace(Pool { process, threads, workers: Arc::clone(&workers) });
    if let Some(old) = old
        && old.process != process
    {
        // Its threads are the parent's: to end them here would wait for ever.
        std::mem::forget(old);
    }
    Some(workers)
}

/// Does the work of every job, which concern `coordinates` in all, on up to `threads` threads: this
/// one and others of the pool. Each takes the next job when it is done with its last, so that one
/// which comes late (its core may be spinning for somebody else) holds up nobody.
pub(crate) fn for_each<J: Send>(
    threads: usize,
    coordinates: usize,
    jobs: Vec<J>,
    work: impl Fn(J) + Sync,
) {
    for_each_in(TEAM.get().copied(), threads, coordinates, jobs, work);
}

/// The same in a team, or on the pool where there is none.
fn for_each_in<J: Send>(
    team: Option<Team>,
    threads: usize,
    coordinates: usize,
    jobs: Vec<J>,
    work: impl Fn(J) + Sync,
) {
    let helpers = threads.min(coordinates / GRAIN).min(jobs.len()).saturating_sub(1);
    if helpers == 0 {
        return jobs.into_iter().for_each(work);
    }
    let jobs = Mutex::new(jobs.into_iter());
    let drain = || drain(&jobs, &work);
    // A team of another size each time might be made anew: whom there is no job for goes home.
    if team.is_some_and(|team| team(threads, &drain)) {
        return;
    }
    let Some(pool) = pool(helpers) else {
        return drain();
    };
    pool.in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| drain());
        }
        drain();
    });
}

/// The same on threads that are started for it and end with it, so that none is there when the
/// process forks. Where the system refuses one, the others do its work.
pub(crate) fn for_each_once<J: Send>(threads: usize, jobs: Vec<J>, work: impl Fn(J) + Sync) {
    let helpers = threads.min(jobs.len()).saturating_sub(1);
    let jobs = Mutex::new(jobs.into_iter());
    thread::scope(|scope| {
        for _ in 0..helpers {
            if thread::Builder::new().spawn_scoped(scope, || drain(&jobs, &work)).is_err() {
                break;
            }
        }
        drain(&jobs, &work);
    });
}

/// Does the work of jobs until there is none left.
fn drain<J>(jobs: &Mutex<vec::IntoIter<J>>, work: &impl Fn(J)) {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    while let Some(job) = next() {
        work(job);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Threads that a host would have at hand.
    fn lent(threads: usize, work: &(dyn Fn() + Sync)) -> bool {
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        true
    }

    #[test]
    fn every_job_is_done_once_on_any_number_of_threads() {
        let teams: [Option<Team>; 3] = [None, Some(lent), Some(|_, _| false)];
        for (threads, team) in [0, 1, 2, 3, 8, 2].into_iter().flat_map(|n| teams.map(|t| (n, t))) {
            let mut done = vec![0_u32; 100];
            for_each_in(team, threads, usize::MAX, done.iter_mut().collect(), |done| *done += 1);
            assert!(done.iter().all(|&done| done == 1));
            for_each_once(threads, done.iter_mut().collect(), |done| *done += 1);
            assert!(done.iter().all(|&done| done == 2));
        }
    }

    #[test]
    fn callers_may_overlap() {
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for_each(3, usize::MAX, vec![1; 50], |one| {
                        done.fetch_add(one, Ordering::Relaxed);
                    });
                });
            }
        });
        assert_eq!(done.into_inner(), 200);
    }
}
