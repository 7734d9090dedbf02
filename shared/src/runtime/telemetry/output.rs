//! Where lines of the log go. One that cannot be written is counted, and the other outputs are told once: a full disk
//! would lose lines unnoticed.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::ALWAYS;

/// Belongs to the thread that writes. Whoever logs does not wait for it.
#[derive(Debug)]
pub(super) struct Output<W> {
    name: &'static str,
    writer: W,
    /// Lines that could not be written so far, all outputs together.
    lost: Arc<AtomicU64>,
    /// Lines that could not be written since the last one that was.
    failing: u64,
    /// A part of a line stands at the end.
    is_cut: bool,
}

impl<W: Write> Output<W> {
    pub(super) fn new(name: &'static str, writer: W, lost: &Arc<AtomicU64>) -> Self {
        Self { name, writer, lost: Arc::clone(lost), failing: 0, is_cut: false }
    }

    fn put(&mut self, mut line: &[u8]) -> io::Result<()> {
        if self.is_cut {
            self.writer.write_all(b"\n")?;
            self.is_cut = false;
        }
        while !line.is_empty() {
            match self.writer.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    line = &line[written..];
                    self.is_cut = !line.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Output<W> {
    /// A whole line, which is written or lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let output = self.name;
        match self.put(line) {
            Ok(()) if self.failing > 0 => {
                let lines = std::mem::take(&mut self.failing);
                tracing::warn!(target: ALWAYS, output, lines, "the log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.failing += 1;
                // This line comes here too, and is lost: the other outputs have it.
                if self.failing == 1 {
                    tracing::error!(target: ALWAYS, output, error = %error, "the log cannot be written: lines are lost");
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for so many bytes more.
    struct Disk {
        room: usize,
        bytes: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.room);
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= written;
            self.bytes.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_finds_no_room_is_counted_and_joins_no_other() {
        let lost = Arc::default();
        let mut output = Output::new("files", Disk { room: 8, bytes: Vec::new() }, &lost);
        for line in ["one\n", "two, cut\n", "three\n"] {
            output.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((lost.load(Ordering::Relaxed), output.failing), (2, 2));
        output.writer.room = 100;
        for line in ["four\n", "five\n"] {
            output.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((lost.load(Ordering::Relaxed), output.failing), (2, 0));
        assert_eq!(String::from_utf8(output.writer.bytes).unwrap(), "one\ntwo,\nfour\nfive\n");
    }
}
