//! The threads of torch's OpenMP, lent to our work.
//!
//! Between two of torch's calls they spin for milliseconds on the cores that threads of our own
//! would want, and so are at work at once when called; inside a training loop a pool of our own gets
//! half a core of each. `GOMP_parallel` is how compiled code enters a parallel region: it belongs to
//! the binary interface of GCC's libgomp, and LLVM's and Intel's runtimes have it too.
#![expect(unsafe_code, reason = "a C function is looked up and called")]

use std::ffi::{c_uint, c_void};
use std::sync::OnceLock;
use std::{mem, process};

/// `GOMP_parallel(function, data, threads, flags)` calls `function(data)` on so many threads, the
/// caller's among them, and returns when all have returned.
type Parallel =
    unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// Work on as many threads, as core asks for it.
type Work<'a> = &'a (dyn Fn() + Sync);

/// The process that loaded this extension.
static HOME: OnceLock<u32> = OnceLock::new();

/// Lends core the threads of torch, wherever it is loaded by the time that there is work.
pub(crate) fn lend() {
    HOME.get_or_init(process::id);
    batchramp_core::lend_threads(team);
}

/// Runs work on torch's threads; false where torch, or its OpenMP, is not there, and in a fork of
/// the process, which may have the memory of these threads but not the threads.
fn team(threads: usize, work: Work<'_>) -> bool {
    static PARALLEL: OnceLock<Option<Parallel>> = OnceLock::new();
    let Ok(threads) = c_uint::try_from(threads) else {
        return false;
    };
    if HOME.get() != Some(&process::id()) {
        return false;
    }
    let Some(parallel) = PARALLEL.get_or_init(find) else {
        return false;
    };
    let data = (&raw const work).cast_mut().cast();
    // SAFETY: `enter` reads `data` as the `Work` that it is, which outlives the call, for that
    // returns when all threads have returned from `enter`; `Work` may be shared among threads.
    unsafe { parallel(enter, data, threads, 0) };
    true
}

/// What each thread does. A panic ends the process here, as it cannot cross C.
unsafe extern "C" fn enter(data: *mut c_void) {
    // SAFETY: `team` gave a pointer to a `Work` that lives until all threads have returned.
    let work = unsafe { *data.cast::<Work<'_>>() };
    work();
}

/// Finds the function among the libraries of the process that are open to all, as torch's are.
fn find() -> Option<Parallel> {
    // SAFETY: the name ends in a zero; nothing else is asked of the caller.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
    // SAFETY: a function pointer or none is a pointer or null, and this symbol has this type in
    // every runtime that exports it.
    unsafe { mem::transmute::<*mut c_void, Option<Parallel>>(found) }
}
