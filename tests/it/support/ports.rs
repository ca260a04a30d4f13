//! Ports for processes that cannot tell which one they got.
//!
//! They lie below the ephemeral range (32768), where an outgoing connection of somebody else could take one in between. The sidecar
//! binds with `SO_REUSEPORT`, so two of them would share a port in silence: each test process claims a block of ports for its lifetime by
//! holding the block's first port.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const BLOCK: u16 = 200;
const BLOCKS: u16 = 100;

struct Block {
    start: u16,
    next: AtomicU16,
    _guard: TcpListener,
}

static CLAIMED: LazyLock<Block> = LazyLock::new(claim);

/// A port on 127.0.0.1 where nobody listens and that no other test gets.
pub(crate) fn free_port() -> u16 {
    for _ in 1..BLOCK {
        let offset = CLAIMED.next.fetch_add(1, Ordering::Relaxed) % (BLOCK - 1);
        let port = CLAIMED.start + 1 + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {} to {}", CLAIMED.start, CLAIMED.start + BLOCK);
}

fn claim() -> Block {
    let offset = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
    (0..BLOCKS)
        .map(|turn| FIRST + (offset + turn) % BLOCKS * BLOCK)
        .find_map(|start| {
            let guard = TcpListener::bind(("127.0.0.1", start)).ok()?;
            Some(Block { start, next: AtomicU16::new(0), _guard: guard })
        })
        .expect("every block of ports is taken")
}
