//! Guards a ZIP archive: refuses dangerous directories and checks every byte it unpacks.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read},
    os::unix::fs::FileExt,
};

use zip::{
    CompressionMethod, ZipReadOptions,
    read::{Config, OwnedZipFileEntry, ZipFile, ZipFileEntry},
    result::ZipError,
    unstable::read::ZipIterable,
};

use super::{Error, Limits};

/// Entries of no more bytes than this may be packed as tightly as they like.
pub const RATIO_JUDGED_FROM_BYTES: u64 = 1 << 20;
/// Slack's own names are far shorter.
const MAX_NAME_BYTES: usize = 1024;
/// Room for a name and the usual extra fields; keeps the directory itself within memory.
const MAX_DIRECTORY_BYTES_PER_ENTRY: u64 = 1024;
/// Head of every ZIP entry before its name: signature, versions, sizes.
const LOCAL_HEADER_BYTES: usize = 30;
/// Places of the lengths of what follows that head.
const NAME_LENGTH: usize = 26;
const EXTRA_LENGTH: usize = 28;
/// Most bytes that deflate makes of one packed byte, rounded up, and of a stream that packs nothing.
const MAX_DEFLATE_RATIO: u64 = 1_040;
const MAX_ZIP_COMMENT_BYTES: u64 = 1 << 16;

/// Holds a checked ZIP directory and the file it belongs to.
#[derive(Debug)]
pub(super) struct Entries {
    file: File,
    list: Vec<Entry>,
}

/// Holds one file of the archive.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path within the archive: relative, with `/` and without `..`.
    pub(super) name: String,
    packed: OwnedZipFileEntry,
}

impl Entries {
    /// Reads and checks the directory of the archive in `file`.
    pub(super) fn open(file: File, limits: &Limits) -> Result<Self, Error> {
        let too_many = || Error::TooManyEntries { max_entries: limits.max_entries };
        // `ZipArchive` would make room for as many entries as the archive claims before any check.
        let mut directory = ZipIterable::try_new(&file, Config::default()).map_err(unreadable)?;
        if directory.len() > limits.max_entries {
            return Err(too_many());
        }
        let file_bytes = file.metadata().map_err(Error::Io)?.len();
        let max_directory_bytes = MAX_DIRECTORY_BYTES_PER_ENTRY
            .saturating_mul(directory.len() as u64)
            .saturating_add(MAX_ZIP_COMMENT_BYTES);
        let mut names = HashSet::new();
        let mut total_bytes = 0_u64;
        let mut list = Vec::new();
        let (mut places, mut directory_start) = (Vec::new(), file_bytes);
        for entry in directory.files().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if file_bytes.saturating_sub(entry.central_header_start()) > max_directory_bytes {
                return Err(Error::NotAZip);
            }
            let name = checked(&entry, limits)?;
            total_bytes = total_bytes.saturating_add(entry.size());
            if total_bytes > limits.max_total_bytes {
                return Err(Error::TotalTooLarge { max_bytes: limits.max_total_bytes });
            }
            directory_start = directory_start.min(entry.central_header_start());
            places.push(Place::of(&entry, &name, &file)?);
            if !names.insert(name.clone()) {
                return Err(Error::DuplicateName { name: shortened(&name) });
            }
            if !entry.is_dir() {
                list.push(Entry { name, packed: entry.into() });
            }
        }
        let max_ratio = limits.max_ratio;
        if total_bytes > RATIO_JUDGED_FROM_BYTES
            && total_bytes > file_bytes.saturating_mul(max_ratio)
        {
            return Err(Error::TotalRatioTooHigh { max_ratio });
        }
        check_overlaps(places, directory_start)?;
        Ok(Self { file, list })
    }

    /// Returns the files in the order of the directory; a file's place in it is its number.
    pub(super) fn list(&self) -> &[Entry] {
        &self.list
    }

    /// Unpacks a file; reading fails with an [`Error`] inside when it is not as stated.
    pub(super) fn reader(&mut self, number: usize) -> Result<impl BufRead, Error> {
        let Entry { name, packed } = &self.list[number];
        let unpacked = packed
            .as_ref()
            .with_reader(&mut self.file, ZipReadOptions::new())
            .map_err(|_| Error::Corrupt { name: shortened(name) })?;
        let checked = CheckedReader { name, unpacked, missing_bytes: packed.size() };
        Ok(BufReader::with_capacity(1 << 16, checked))
    }
}

/// The bytes of the archive that an entry takes.
struct Place {
    start: u64,
    end: u64,
    name: String,
}

impl Place {
    /// Reads where an entry's packed bytes are: its own header may have more before them than the directory tells.
    fn of(entry: &ZipFileEntry<'_>, name: &str, file: &File) -> Result<Self, Error> {
        let start = entry.header_start();
        let mut header = [0; LOCAL_HEADER_BYTES];
        let corrupt = || Error::Corrupt { name: shortened(name) };
        match file.read_exact_at(&mut header, start) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(corrupt()),
            read => read.map_err(Error::Io)?,
        }
        if !header.starts_with(b"PK\x03\x04") {
            return Err(corrupt());
        }
        let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let header_bytes = LOCAL_HEADER_BYTES as u64 + length(NAME_LENGTH) + length(EXTRA_LENGTH);
        let end = start.saturating_add(header_bytes).saturating_add(entry.compressed_size());
        Ok(Self { start, end, name: shortened(name) })
    }
}

/// Refuses entries that share bytes: the same packed bytes would be unpacked again and again.
fn check_overlaps(mut places: Vec<Place>, directory_start: u64) -> Result<(), Error> {
    places.sort_unstable_by_key(|place| place.start);
    let ends = places.iter().skip(1).map(|next| next.start).chain([directory_start]);
    let overlapping = places.iter().zip(ends).find(|(place, end)| place.end > *end);
    overlapping.map_or(Ok(()), |(place, _)| Err(Error::Overlap { name: place.name.clone() }))
}

fn unreadable(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) if error.raw_os_error().is_some() => Error::Io(error),
        _ => Error::NotAZip,
    }
}

/// Returns the entry's name if the entry may be in the archive.
fn checked(entry: &ZipFileEntry<'_>, limits: &Limits) -> Result<String, Error> {
    let name = entry.name().map_err(|_| Error::NotAZip)?.into_owned();
    let shown = shortened(&name);
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    let leads_out = name.starts_with('/') || name.split('/').any(|part| part == "..");
    if leads_out || has_drive || name.contains(['\\', '\0']) || name.len() > MAX_NAME_BYTES {
        return Err(Error::UnsafeName { name: shown });
    }
    // The mode's file type is looked at whatever system the entry claims to come from.
    if entry.is_symlink() || (entry.external_attributes() >> 16) & 0o170_000 == 0o120_000 {
        return Err(Error::Symlink { name: shown });
    }
    if entry.encrypted() {
        return Err(Error::Encrypted { name: shown });
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(Error::UnsupportedCompression { name: shown });
    }
    let max_bytes = limits.max_entry_bytes;
    if entry.size() > max_bytes {
        return Err(Error::EntryTooLarge { name: shown, max_bytes });
    }
    let most_bytes = entry.compressed_size().saturating_mul(limits.max_ratio);
    if entry.size() > RATIO_JUDGED_FROM_BYTES && entry.size() > most_bytes {
        return Err(Error::RatioTooHigh { name: shown, max_ratio: limits.max_ratio });
    }
    // No entry holds more than its packing can give.
    let most_bytes = match entry.compression() {
        CompressionMethod::Stored => entry.compressed_size(),
        _ => entry.compressed_size().saturating_mul(MAX_DEFLATE_RATIO),
    };
    if entry.size() > most_bytes {
        return Err(Error::SizeMismatch { name: shown });
    }
    Ok(name)
}

/// Keeps error messages readable whatever an entry is called.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(120).collect()
}

/// Reads a file of the archive and holds it to its stated size and checksum.
///
/// The directory's sizes were judged against the limits, so holding files to them also bounds
/// what is really unpacked.
struct CheckedReader<'a> {
    name: &'a str,
    unpacked: ZipFile<'a, File>,
    missing_bytes: u64,
}

impl CheckedReader<'_> {
    fn failure(&self, error: io::Error) -> io::Error {
        let name = shortened(self.name);
        // The zip crate has no error type of its own for a wrong checksum.
        let is_checksum = error.to_string().contains("checksum");
        io::Error::other(match error.kind() {
            _ if error.raw_os_error().is_some() => return error,
            ErrorKind::InvalidData if self.missing_bytes == 0 && is_checksum => {
                Error::Checksum { name }
            }
            ErrorKind::InvalidData if self.missing_bytes == 0 => Error::SizeMismatch { name },
            _ => Error::Corrupt { name },
        })
    }
}

impl Read for CheckedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Never asks for more than is missing, and then for one byte more: that read must find
        // the end, where the checksum is compared.
        let wanted_bytes = usize::try_from(self.missing_bytes.max(1)).unwrap_or(usize::MAX);
        let wanted_bytes = wanted_bytes.min(buffer.len());
        let got_bytes = match self.unpacked.read(&mut buffer[..wanted_bytes]) {
            Ok(got_bytes) => got_bytes as u64,
            Err(error) => return Err(self.failure(error)),
        };
        let ends_early = got_bytes == 0 && wanted_bytes > 0 && self.missing_bytes > 0;
        if ends_early || got_bytes > self.missing_bytes {
            let name = shortened(self.name);
            return Err(io::Error::other(Error::SizeMismatch { name }));
        }
        self.missing_bytes -= got_bytes;
        Ok(usize::try_from(got_bytes).unwrap_or(wanted_bytes))
    }
}
