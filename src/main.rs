//! The program: arguments in, exit code out. Everything else is the library.

use std::process::ExitCode;

/// Faster than the system's for many small, short-lived allocations; a program's choice, so not in the library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cloakroom::cli::run(std::env::args_os())
}
