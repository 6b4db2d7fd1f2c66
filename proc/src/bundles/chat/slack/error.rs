//! Names every reason for which an export as a whole is refused.

use std::io;

/// Tells why an export cannot be read; each message is fit to be shown to a user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has no readable ZIP directory.
    #[error("the file is not a ZIP archive, or it is cut off or damaged")]
    NotAZip,
    /// The ZIP directory lists too much.
    #[error("the archive holds more than {max_entries} entries")]
    TooManyEntries {
        /// The limit.
        max_entries: usize,
    },
    /// An entry needs a password.
    #[error("the entry {name:?} is encrypted")]
    Encrypted {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry's name could lead out of its folder, or is not one a Slack export has.
    #[error("the entry {name:?} has an unsafe name")]
    UnsafeName {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry is a symbolic link.
    #[error("the entry {name:?} is a symbolic link")]
    Symlink {
        /// Name of the entry, shortened.
        name: String,
    },
    /// Two entries have one name.
    #[error("the archive holds the entry {name:?} twice")]
    DuplicateName {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry is packed with something else than deflate.
    #[error("the entry {name:?} is packed with an unsupported method")]
    UnsupportedCompression {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry unpacks to too much.
    #[error("the entry {name:?} is larger than {max_bytes} bytes")]
    EntryTooLarge {
        /// Name of the entry, shortened.
        name: String,
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// All entries together unpack to too much.
    #[error("the archive unpacks to more than {max_bytes} bytes")]
    TotalTooLarge {
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// An entry is packed so tightly that it must be made to fill memory or disk.
    #[error("the entry {name:?} unpacks to more than {max_ratio} times its packed size")]
    RatioTooHigh {
        /// Name of the entry, shortened.
        name: String,
        /// The limit.
        max_ratio: u64,
    },
    /// All entries together are packed so tightly that it must be made to fill memory or disk.
    #[error("the archive unpacks to more than {max_ratio} times its size")]
    TotalRatioTooHigh {
        /// The limit.
        max_ratio: u64,
    },
    /// An entry shares packed bytes with another, or with the directory.
    #[error("the entry {name:?} overlaps another one")]
    Overlap {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry unpacks to other bytes than were packed.
    #[error("the entry {name:?} is damaged: its checksum is wrong")]
    Checksum {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry unpacks to more or fewer bytes than the directory says.
    #[error("the entry {name:?} does not have the size that the archive states")]
    SizeMismatch {
        /// Name of the entry, shortened.
        name: String,
    },
    /// An entry cannot be unpacked.
    #[error("the entry {name:?} is damaged and cannot be unpacked")]
    Corrupt {
        /// Name of the entry, shortened.
        name: String,
    },
    /// The file is of another system.
    #[error("this is {what}, not a Slack export: {advice}")]
    Foreign {
        /// The file and the system that wrote it, such as "an export of Discord".
        what: &'static str,
        /// Advice for the user.
        advice: &'static str,
    },
    /// A file without which an export makes no sense is not there.
    #[error("the archive is not a Slack export: it has no {file}")]
    Missing {
        /// Name of the file.
        file: &'static str,
    },
    /// An index is no complete JSON array.
    #[error("{file} is not a complete JSON array: {reason}, at line {line}")]
    NotAnArray {
        /// Name of the file.
        file: &'static str,
        /// What is wrong, such as "the array never ends".
        reason: &'static str,
        /// The line at which it is seen, from 1.
        line: u64,
    },
    /// An index lists too much.
    #[error("{file} lists more than {max_entries} entries")]
    IndexTooLong {
        /// Name of the file.
        file: &'static str,
        /// The limit.
        max_entries: usize,
    },
    /// An index holds too much text.
    #[error("{file} has more than {max_bytes} bytes of names")]
    IndexTooLarge {
        /// Name of the file.
        file: &'static str,
        /// The limit in bytes.
        max_bytes: usize,
    },
    /// The file itself cannot be read.
    #[error("the archive cannot be read: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        // Readers of entries carry an `Error` through `io::Read`.
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}
