//! Announcing is paused: orders are taken, their messages wait in the outbox. The session's looks tell every instance.

use shared::operators::audit::Action;

use crate::audit;

shared::pause_table!(audit::record, Action::AnnouncingPaused, Action::AnnouncingResumed);
