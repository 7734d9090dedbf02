/// One step of one party. `p` is a process, `m` a message, `a` an attempt at placing it; a log has the
/// number of the identity that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `statement::place` is sent under a ticket of `OwnLog::draw`, with or without a slot of the queue.
    Place {
        m: usize,
        slot: bool,
    },
    /// `outcome::until_known` repeats it with the same reference: under the same ticket, or a new one
    /// where the identity has been replaced meanwhile.
    Repeat {
        m: usize,
        slot: bool,
    },
    /// The server locks the outbox for the statement (ROW EXCLUSIVE), and only then takes its snapshot.
    Lock {
        m: usize,
        a: usize,
    },
    /// The statement's snapshot: its root, the fence, is true or false; then ON CONFLICT.
    Snapshot {
        m: usize,
        a: usize,
    },
    Commit {
        m: usize,
        a: usize,
    },
    /// An error, a time-out, a cancelled backend. Of a statement that nobody waits for: at any time.
    Abort {
        m: usize,
        a: usize,
    },
    /// The answer arrives: `Ticket::committed` or `Ticket::absent`.
    Answer {
        m: usize,
    },
    /// The connection fails before it does; the statement goes on.
    LoseAnswer {
        m: usize,
    },

    /// `OwnLog::next_page` moves the cursor, by one or to the end, and reads what it passed.
    NextPage {
        p: usize,
        whole: bool,
    },
    /// `Reloader::apart`: what has committed behind the cursor is read by itself.
    LatePage {
        p: usize,
    },
    /// `Reloader::own_page`: the answer arrives, or is lost: then the page is read again.
    PageRead {
        p: usize,
    },
    LoseOwnPage {
        p: usize,
    },

    /// `Publisher::hand_over`.
    HandOver {
        p: usize,
        m: usize,
    },
    /// The broker takes a message and acknowledges it.
    Deliver {
        p: usize,
        m: usize,
    },
    /// The broker takes, or never gets, what a killed process had sent.
    GhostArrives {
        m: usize,
    },
    GhostVanishes {
        m: usize,
    },
    /// `Marks::mark_published` inserts into `published`, with `settled_to`. Repeated where the answer is lost.
    Mark {
        p: usize,
        m: usize,
        answered: bool,
    },
    /// The broker refuses a message for the last time that is allowed.
    Refuse {
        p: usize,
        m: usize,
    },
    /// `Marks::record_rejections` inserts into `rejected_messages`.
    Reject {
        p: usize,
        m: usize,
    },

    /// `adopted::adopt`: one UPDATE of `instances`. Repeated where the answer is lost.
    Adopt {
        p: usize,
        log: usize,
        answered: bool,
    },
    /// `adopted::writers`: who holds ROW EXCLUSIVE on the outbox.
    List {
        p: usize,
        log: usize,
    },
    /// `Adopted::close`: all of these are gone.
    Close {
        p: usize,
        log: usize,
    },
    /// `Adopted::read_page`: the statement and its snapshot.
    ReadPage {
        p: usize,
        log: usize,
    },
    /// Its answer arrives, or is lost: then the page is read again.
    PageArrives {
        p: usize,
        log: usize,
    },
    LosePage {
        p: usize,
        log: usize,
    },
    /// `Adopted::finish`.
    Done {
        p: usize,
        log: usize,
    },

    /// Half of `takeover_after` passes without a confirmation.
    Expire {
        p: usize,
    },
    /// `session::resume`: the lock taken again, the identity not ended.
    Resume {
        p: usize,
    },
    /// `identity::look` sees the lock of another identity free, for the first time.
    SeeFree {
        p: usize,
        id: usize,
    },
    /// `Session::end_other`, at least `takeover_after` later, with that lock in hand.
    EndOther {
        p: usize,
        id: usize,
    },
    /// `Instance::doubt`: another timeline, or an identity that has lived long enough.
    Doubt {
        p: usize,
    },
    /// `Session::replace`, its first half: in doubt, the own identity ends once the flight has landed.
    /// A graceful stop does the same.
    EndOwn {
        p: usize,
    },
    /// `Session::replace`, its second half; or the whole after being ended by another.
    TakeAnother {
        p: usize,
    },
    /// `Session::begin` of a process started again.
    Start {
        p: usize,
    },

    /// `Partitions::drop`: of the outbox (here each message has a partition of its own).
    DropRows {
        m: usize,
    },
    /// `Partitions::drop`: of the marks.
    DropMarks {
        m: usize,
    },

    Kill {
        p: usize,
    },
    Pause {
        p: usize,
    },
    Wake {
        p: usize,
    },
    LoseSession {
        p: usize,
    },
}
