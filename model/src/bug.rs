/// A fault planted in the protocol, to show that the exploration finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    // A writer and its own log.
    /// The writer reads what is not marked in its own log into memory: that also means in flight.
    ReloadBySelect,
    /// While the cursor is behind, a fresh message may have a slot all the same.
    Overtake,
    /// A page takes in what is under way, which will be taken in when its answer comes, too.
    PageOfUnderWay,
    /// The cursor forgets what commits behind it.
    ForgetLate,
    /// Where a page is lost, the cursor goes back to where it began.
    CursorGoesBack,
    /// The cursor waits for a placement that is under way.
    CursorWaits,
    /// What was placed under an identity that has ended enters the queue of the next.
    EnqueueForEnded,

    // A placement, and the end of the identity it was placed under.
    /// The placing statement does not look whether its identity has ended.
    NoFence,
    /// Only the message hangs on the fence; its order is written without it.
    FenceAtMessage,
    /// The fence is seen in a snapshot older than the lock: a transaction that is not READ COMMITTED.
    OldSnapshot,

    // Adopting.
    /// The log of an instance that lives is adopted.
    Steal,
    /// A log is adopted while another adopter of it lives.
    TwoAdopters,
    /// The adopter adopts once more what it has, and begins anew.
    AdoptTwice,
    /// An instance adopts the log it has just ended itself, before it has another identity.
    AdoptOwn,
    /// Closed at once, without looking for transactions that may still commit.
    CloseEarly,
    /// Closed when the transactions with an xid are gone: those that only wait have none.
    CloseBySnapshot,
    /// An identity that ended hours ago is taken to be closed.
    DoneWithoutClosing,
    /// A pass that begins while the locks are waited for counts as the last one.
    LastPassTooEarly,
    /// There is one pass before the log is closed, and no other until it is.
    PassOnce,
    /// A closed log is done though it has unsettled messages.
    Forget,

    // Identities.
    /// Messages are handed over without a confirmed lock.
    HandOverUnconfirmed,
    /// Another identity is ended after one look.
    OneLook,
    /// The identity is replaced while messages are in flight.
    ReplaceInFlight,
    /// An old confirmation counts while the identity is being replaced.
    TrustWhileReplacing,

    // What is settled.
    /// A placement of unknown outcome counts as known to be absent.
    SettleUnknown,
    /// A message at the threshold is settled before its row among the rejected ones is committed.
    SettleRefused,
    /// The answers of what an ended log was asked count for its gaps before it is closed.
    SettleGaps,
    /// A partition of the outbox goes without a look at what is in it.
    DropEarly,
    /// Marks go when `settled_to` has passed them, and with them the only place that says so.
    DropMarksEarly,
}

impl Bug {
    pub const ALL: [Self; 29] = [
        Self::ReloadBySelect,
        Self::Overtake,
        Self::PageOfUnderWay,
        Self::ForgetLate,
        Self::CursorGoesBack,
        Self::CursorWaits,
        Self::EnqueueForEnded,
        Self::NoFence,
        Self::FenceAtMessage,
        Self::OldSnapshot,
        Self::Steal,
        Self::TwoAdopters,
        Self::AdoptTwice,
        Self::AdoptOwn,
        Self::CloseEarly,
        Self::CloseBySnapshot,
        Self::DoneWithoutClosing,
        Self::LastPassTooEarly,
        Self::PassOnce,
        Self::Forget,
        Self::HandOverUnconfirmed,
        Self::OneLook,
        Self::ReplaceInFlight,
        Self::TrustWhileReplacing,
        Self::SettleUnknown,
        Self::SettleRefused,
        Self::SettleGaps,
        Self::DropEarly,
        Self::DropMarksEarly,
    ];
}
