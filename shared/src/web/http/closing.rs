//! A listener is closed without losing a connection.
//!
//! The kernel makes connections before the server accepts them. Those that it has made by the time the listener is closed
//! are reset, with the request that may be in them already: a proxy cannot tell that nobody has read it. So at first the
//! kernel is told to make no more of them, which a caller takes for a lost packet; what was made is accepted and
//! answered; then the listener is closed, and the caller, who asks again after a second, is refused.

use std::{net::TcpListener, time::Duration};

use socket2::{SockFilter, SockRef};
use tokio::time::sleep;

/// A connection that was begun is made and accepted by then: the longest round trip between two continents. It is a time
/// because the kernel tells nobody how many it has half made (of a listener TCP_INFO counts what waits to be accepted).
const MADE_WITHIN: Duration = Duration::from_millis(200);

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
    // It would keep the port open.
    drop(listener);
    sleep(MADE_WITHIN).await;
}
