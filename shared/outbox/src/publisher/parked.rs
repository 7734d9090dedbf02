//! Messages in memory whose partition has its share in flight.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Outgoing,
    lanes::{Admission, Lanes},
};
use crate::{message::Service, metrics::SET_BACK, queue::Source};

/// By partition, first come, first served. Their slots bound them.
#[derive(Debug)]
pub(super) struct Parked {
    lanes: Lanes,
    service: Service,
    partitions: BTreeMap<i32, VecDeque<Outgoing>>,
    /// A log had no room for what was to be set back.
    is_log_full: bool,
}

impl Parked {
    pub(super) fn new(lanes: Lanes, service: Service) -> Self {
        Self { lanes, service, partitions: BTreeMap::new(), is_log_full: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether every partition stands for which messages wait.
    pub(super) fn waits_for_nobody_else(&self) -> bool {
        self.partitions.keys().all(|partition| !self.lanes.is_open(*partition))
    }

    /// What is to be done with a message; not before those that came before it.
    pub(super) fn admission(&self, message: &Outgoing) -> Admission {
        match self.lanes.admit(&message.queued.message.key(&self.service)) {
            Admission::Now(entry) if entry.partition().is_some_and(|one| self.partitions.contains_key(&one)) => {
                Admission::Soon(entry.partition().expect("it was looked at"))
            }
            other => other,
        }
    }

    pub(super) fn park(&mut self, partition: i32, message: Outgoing) {
        self.partitions.entry(partition).or_default().push_back(message);
    }

    /// A message leaves memory, and is read again when its partition takes messages. What has no place in a
    /// log stays: a page of a rebroadcast, and what operators want sent again.
    pub(super) fn set_back(&mut self, partition: i32, message: Outgoing) {
        let is_back = match &message.queued.source {
            Source::Log(log) => log.set_back(message.queued.message.seq, partition),
            Source::Retry | Source::Rebroadcast(_) => false,
        };
        if is_back {
            SET_BACK.add(1);
        } else {
            self.is_log_full |= matches!(message.queued.source, Source::Log(_));
            self.park(partition, message);
        }
    }

    /// Whether some of what waits for this partition is worth another look.
    fn is_due(&self, partition: i32, waiting: &VecDeque<Outgoing>) -> bool {
        let goes_back = |first: &Outgoing| matches!(first.queued.source, Source::Log(_)) && !self.is_log_full;
        self.lanes.has_room(partition) || self.lanes.belongs_back(partition) && waiting.front().is_some_and(goes_back)
    }

    /// Moves what may be handed over now into `batch`, and sets back what waits for a partition that stands.
    pub(super) fn take(&mut self, batch: &mut Vec<Outgoing>, full: usize) {
        self.lanes.note_parked(self.partitions.values().map(VecDeque::len).sum());
        let all = self.partitions.iter();
        let due: Vec<i32> = all
            .filter(|(partition, waiting)| self.is_due(**partition, waiting))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in due {
            let Some(mut waiting) = self.partitions.remove(&partition) else { continue };
            let mut stays = VecDeque::new();
            while batch.len() < full
                && let Some(mut message) = waiting.pop_front()
            {
                match self.lanes.admit(&message.queued.message.key(&self.service)) {
                    Admission::Now(entry) => {
                        message.entry = Some(entry);
                        batch.push(message);
                        self.is_log_full = false;
                    }
                    // Of another number where there are more partitions by now.
                    Admission::Soon(other) if other != partition => self.park(other, message),
                    Admission::Soon(_) => {
                        waiting.push_front(message);
                        break;
                    }
                    Admission::Back(other) => {
                        let is_log = matches!(message.queued.source, Source::Log(_));
                        if is_log { self.set_back(other, message) } else { stays.push_back(message) }
                    }
                }
            }
            stays.append(&mut waiting);
            if !stays.is_empty() {
                self.partitions.entry(partition).or_default().extend(stays);
            }
        }
    }
}
