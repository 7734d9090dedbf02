//! A listener is closed without losing a connection.
//!
//! The kernel makes connections before the server accepts them. Those that it has made by the time the listener is closed
//! are reset, with the request that may be in them already: a proxy cannot tell that nobody has read it. So at first the
//! kernel is told to make no more of them, which a caller takes for a lost packet; what was made is accepted and
//! answered; then the listener is closed, and the caller, who asks again after a second, is refused.

use std::{
    fs::File,
    io,
    net::TcpListener,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    time::Duration,
};

use socket2::{SockFilter, SockRef};
use tokio::time::{sleep, timeout};

/// A connection that was begun is made by then: the longest round trip between two continents. It is a time because the
/// kernel tells nobody how many it has half made.
const MADE_WITHIN: Duration = Duration::from_millis(200);
/// One that is made is accepted by then, however busy the machine is.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where the flags are in a packet of TCP.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

// Instructions of the kernel's packet filter (linux/bpf_common.h).
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// To be waited for before a listener is closed, of which this is another handle.
pub(super) async fn make_no_more(listener: TcpListener) {
    let drop_what_begins = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(&listener).attach_filter(&drop_what_begins) {
        // Then it is as it would be without.
        tracing::debug!(error = %error, "connections made at the very end may be reset");
        return;
    }
    // Kept, it would keep the port open.
    let inode = inode_of(listener);
    sleep(MADE_WITHIN).await;
    let accepted = async {
        while matches!(inode, Ok(inode) if is_waited_for(inode).await) {
            sleep(LOOK_EVERY).await;
        }
    };
    if timeout(ACCEPTED_WITHIN, accepted).await.is_err() {
        tracing::warn!("connections that nobody accepted in time are reset");
    }
}

fn inode_of(listener: TcpListener) -> io::Result<u64> {
    Ok(File::from(OwnedFd::from(listener)).metadata()?.ino())
}

/// Whether connections of this listener wait to be accepted: the kernel shows their number as what it has received.
async fn is_waited_for(inode: u64) -> bool {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let sockets = tokio::fs::read_to_string(table).await.unwrap_or_default();
        let mut listed = sockets.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        if let Some(listener) = listed.find(|columns| columns.get(9).is_some_and(|of| of.parse() == Ok(inode))) {
            // Hexadecimal, sent and received.
            return listener[4].split_once(':').is_some_and(|(_, received)| u32::from_str_radix(received, 16) != Ok(0));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn what_waits_to_be_accepted_is_seen_and_nothing_else_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(listener.try_clone().unwrap()).unwrap();
        assert!(!is_waited_for(inode).await);
        let waiting = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        for _ in &waiting {
            assert!(is_waited_for(inode).await);
            listener.accept().unwrap();
        }
        assert!(!is_waited_for(inode).await);
        make_no_more(listener).await;
    }
}
