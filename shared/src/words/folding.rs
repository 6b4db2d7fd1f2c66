//! Spellings that people take for the same: case, width, accents, marks that show nothing, forms of Arabic letters.

use icu_casemap::{CaseMapper, CaseMapperBorrowed};
use icu_normalizer::{
    ComposingNormalizer, ComposingNormalizerBorrowed, DecomposingNormalizer,
    DecomposingNormalizerBorrowed,
};
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfc();
const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfkc();
const NFKD: DecomposingNormalizerBorrowed<'static> = DecomposingNormalizer::new_nfkd();
const CASES: CaseMapperBorrowed<'static> = CaseMapper::new();

/// Returns whether a character shows nothing: soft hyphens, joiners, variation selectors.
pub(super) fn is_ignorable(char: char) -> bool {
    !char.is_ascii() && CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
}

/// Returns a text without the characters that show nothing.
#[must_use]
pub fn without_ignorable(text: &str) -> String {
    text.chars().filter(|char| !is_ignorable(*char)).collect()
}

/// Returns a word with full case folding and in one normal form, with its accents, which stemmers know.
#[must_use]
pub fn keep_accents(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let word = without_ignorable(word);
    let folded = CASES.fold_string(&NFKC.normalize(&word)).into_owned();
    let plain = folded.replace("i\u{307}", "i").replace(['’', '‘', 'ʼ'], "'");
    // Normal forms of a few characters have spaces.
    NFC.normalize(&plain).chars().filter(|char| !char.is_whitespace()).collect()
}

/// Returns a word as it is compared: what [`keep_accents`] returns, without accents and with one form for each letter.
#[must_use]
pub fn fold(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let kept = keep_accents(word);
    if kept.is_ascii() {
        return kept;
    }
    let mut folded = String::with_capacity(kept.len());
    let mut base = '\0';
    for char in NFKD.normalize(&kept).chars() {
        if is_mark(char) {
            if !loses_mark(base, char) {
                folded.push(char);
            }
        } else {
            base = char;
            push_letter(&mut folded, char);
        }
    }
    NFC.normalize(&folded).into_owned()
}

/// Returns a character of a script without spaces as it is compared.
pub(super) fn fold_solid(cluster: &str) -> String {
    NFKC.normalize(&without_ignorable(cluster)).into_owned()
}

fn is_mark(char: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(char);
    matches!(category, GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

/// Returns whether a mark on a letter is an accent or a vowel that many leave out. In other scripts marks are letters.
fn loses_mark(base: char, mark: char) -> bool {
    match base {
        // й and ї are letters of their own, ё is written as е, and stress is marked in dictionaries alone.
        '\u{400}'..='\u{52f}' => match mark {
            '\u{308}' => matches!(base, 'е' | 'э'),
            '\u{306}' => false,
            _ => true,
        },
        '\0'..='\u{3ff}'
        | '\u{1e00}'..='\u{1fff}'
        | '\u{590}'..='\u{6ff}'
        | '\u{750}'..='\u{77f}'
        | '\u{8a0}'..='\u{8ff}' => true,
        _ => false,
    }
}

/// Adds a letter in the form that stands for all of its forms.
fn push_letter(folded: &mut String, char: char) {
    let one = match char {
        'ø' | 'ɵ' => 'o',
        'đ' | 'ð' | 'ɖ' => 'd',
        'ħ' => 'h',
        'ı' | 'ɨ' => 'i',
        'ł' | 'ƚ' => 'l',
        'ŋ' => 'n',
        'ŧ' => 't',
        'ƀ' | 'ɓ' => 'b',
        'ĸ' => 'q',
        // Arabic: forms of alef, ya, ta marbuta, kaf; the letters of Persian and Urdu that look the same.
        'ٱ' => 'ا',
        'ى' | 'ی' | 'ے' => 'ي',
        'ة' | 'ہ' | 'ۀ' | 'ە' => 'ه',
        'ک' => 'ك',
        // Tatweel stretches a word.
        'ـ' => return,
        '٠'..='٩' => digit(char, '٠'),
        '۰'..='۹' => digit(char, '۰'),
        '०'..='९' => digit(char, '०'),
        '০'..='৯' => digit(char, '০'),
        'æ' => return folded.push_str("ae"),
        'œ' => return folded.push_str("oe"),
        'þ' => return folded.push_str("th"),
        'ß' => return folded.push_str("ss"),
        // The final sigma is folded with the case already.
        _ => char,
    };
    folded.push(one);
}

/// Returns the digit of ASCII for one of the digits from `zero` on.
fn digit(char: char, zero: char) -> char {
    u8::try_from(u32::from(char) - u32::from(zero)).map_or(char, |digit| char::from(b'0' + digit))
}
