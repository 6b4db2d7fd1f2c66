//! Languages with stems: which one a text is in, and the stems of its words.

use std::{borrow::Cow, cell::RefCell, collections::HashMap, sync::LazyLock};

use rust_stemmers::{Algorithm, Stemmer};
use whatlang::{Detector, Lang};

use super::{Kind, Token, fold, keep_accents};

/// Letters from which on a text without a common word is looked at for its language.
const MIN_DETECTED_LETTERS: usize = 40;
/// Most stems that a thread keeps for each language.
const MAX_CACHED_STEMS: usize = 10_000;
/// Shorter words have no ending.
const MIN_STEMMED_LETTERS: usize = 3;
/// Marks stems of a word whose language is not known.
const ANY_TAG: char = '*';

/// Defines the languages, with tag, stemmer and the name that the detector has for each, and common words of those in Latin
/// letters.
macro_rules! languages {
    ($($name:ident $tag:literal $lang:ident $words:literal;)*) => {
        /// A language with stems.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Language {
            $($name,)*
        }

        /// All languages with stems.
        const LANGUAGES: &[Language] = &[$(Language::$name,)*];

        impl Language {
            /// Returns the letter that names the language in terms.
            #[must_use]
            pub fn tag(self) -> char {
                match self { $(Self::$name => $tag,)* }
            }

            fn algorithm(self) -> Algorithm {
                match self { $(Self::$name => Algorithm::$name,)* }
            }

            fn common_words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }

            fn lang(self) -> Lang {
                match self { $(Self::$name => Lang::$lang,)* }
            }
        }
    };
}

languages! {
    English 'e' Eng "the a an and or of to in on at is are was were be been it this that these those you he she we they not no \
        with for from by as if but so do does did have has had can will would there what which who how when where why i my your \
        me him them our his her its up out about just any some all more";
    German 'd' Deu "der die das den dem des ein eine einen einem einer und oder ist sind war waren wird werden nicht mit von zu \
        zum zur im auf für fur auch als wie aber ich du er sie wir ihr es man hat haben habe kann dass bei nach noch nur schon \
        wenn aus dann hier was wo kein keine mein sich";
    French 'f' Fra "le la les un une des du de et ou est sont était dans pour sur avec pas ne que qui je tu il elle nous vous ils \
        ce cette ces mon ma mes son sa ses au aux par plus mais comme être avoir fait très où si";
    Spanish 's' Spa "el la los las un una unos de del y o es son está están era en por para con no que se lo su sus al como más \
        pero este esta yo tú él ella nosotros muy también hay ser qué cuando donde mi";
    Italian 'i' Ita "il lo la i gli le un uno una di del della dei delle e o è sono era in per con non che si al alla nel nella \
        come più ma questo questa io tu lui lei noi anche molto c'è essere ho ha dove quando mio";
    Portuguese 'p' Por "o a os as um uma de do da dos das e ou é são era em no na nos nas por para com não que se ao como mais mas \
        este esta eu tu ele ela nós você muito também há ser está quando onde meu";
    Dutch 'n' Nld "de het een en of is zijn was waren in op voor met niet van te naar bij ook als maar ik je jij hij zij ze wij we \
        dat dit die er aan om door nog kan heeft hebben wordt uit waar wat wie mijn geen";
    Swedish 'w' Swe "och det att i en ett är som på av för med den till inte har de om jag du han hon vi ni var kan när men så hur \
        från eller man ska vad där här min";
    Danish 'k' Dan "og det at i en et er som på af for med den til ikke har de om jeg du han hun vi var kan når men så hvordan \
        fra eller man skal hvad der her min";
    Norwegian 'o' Nob "og det å i en et er som på av for med den til ikke har de om jeg du han hun vi var kan når men så hvordan \
        fra eller man skal hva der her min";
    Finnish 'u' Fin "ja on ei se että en ovat oli hän minä sinä me te he tämä mutta kun niin kuin jos tai myös vain mitä missä \
        olen ole joka";
    Hungarian 'h' Hun "a az és egy nem is hogy van volt de ez azt meg csak mint már ha vagy én te ő mi nagyon kell lesz itt ott \
        mert még";
    Romanian 'r' Ron "și si în este sunt un o de la cu pe nu că să din pentru mai ce care dar eu tu el ea noi voi au fost sau \
        foarte când unde";
    Turkish 't' Tur "ve bir bu da de için ile ne çok ama gibi daha var yok mi mı ben sen o biz siz onlar olarak değil kadar \
        nasıl her";
    Russian 'R' Rus "";
    Greek 'G' Ell "";
    Arabic 'A' Ara "";
    Tamil 'T' Tam "";
}

/// The languages of each common word, one bit each.
static COMMON: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let mut common = HashMap::new();
    for (index, language) in LANGUAGES.iter().enumerate() {
        for word in language.common_words().split_whitespace() {
            *common.entry(fold(word)).or_insert(0) |= 1 << index;
        }
    }
    common
});

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let latin = LANGUAGES.iter().filter(|language| language.is_latin());
    Detector::with_allowlist(latin.map(|language| language.lang()).collect())
});

/// Words that are cut off before an apostrophe in French, Italian, Catalan and Irish.
const ELIDED: &str = "l d j m t s n c qu jusqu lorsqu puisqu quoiqu presqu quelqu entr dell dall nell sull coll all agl dagl degl \
    negl sugl gl un quell bell sant quest tutt mezz senz anch com dov b ch g";

static ELISIONS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| ELIDED.split_whitespace().collect());

thread_local! {
    /// Stems of words, by language: few words are most of a chat, and a stem costs more than everything else of a word.
    static STEMS: RefCell<Vec<HashMap<String, String>>> =
        RefCell::new(vec![HashMap::new(); LANGUAGES.len()]);
}

/// Returns whether letters before an apostrophe are an article or the like.
pub(super) fn is_elision(letters: &str) -> bool {
    ELISIONS.contains(&letters)
}

/// Returns whether texts with stems of a tag are marked: those of other scripts need no mark, and English is everywhere.
pub(super) fn is_marked(tag: char) -> bool {
    tag == ANY_TAG
        || LANGUAGES.iter().any(|language| {
            language.tag() == tag && language.is_latin() && *language != Language::English
        })
}

/// Returns whether a word says little in the language of a question.
#[must_use]
pub fn stopwords(language: Language, term: &str) -> bool {
    let bit = LANGUAGES.iter().position(|known| *known == language).unwrap_or(0);
    COMMON.get(term).is_some_and(|languages| languages & (1 << bit) > 0)
}

impl Language {
    fn is_latin(self) -> bool {
        !matches!(self, Self::Russian | Self::Greek | Self::Arabic | Self::Tamil)
    }

    /// Returns the language of a word of a script with one language here.
    fn of_script(word: &str) -> Option<Self> {
        match word.chars().find(|char| char.is_alphabetic())? {
            '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Some(Self::Greek),
            '\u{400}'..='\u{52f}' => Some(Self::Russian),
            '\u{600}'..='\u{6ff}' => Some(Self::Arabic),
            '\u{b80}'..='\u{bff}' => Some(Self::Tamil),
            _ => None,
        }
    }

    /// Returns the stem of a word, folded.
    fn stem(self, kept: &str, folded: &str) -> String {
        // Accents of Arabic and Russian are marks that most leave out.
        let word = if matches!(self, Self::Arabic | Self::Russian) { folded } else { kept };
        STEMS.with_borrow_mut(|stems| {
            let known = &mut stems[self as usize];
            if let Some(stem) = known.get(word) {
                return stem.clone();
            }
            let stem = fold(&Stemmer::create(self.algorithm()).stem(word));
            if known.len() >= MAX_CACHED_STEMS {
                known.clear();
            }
            known.insert(word.to_owned(), stem.clone());
            stem
        })
    }
}

fn is_latin_word(word: &str) -> bool {
    word.chars().find(|char| char.is_alphabetic()).is_some_and(|first| {
        matches!(first, 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
    })
}

/// Returns a word with its accents; a word of ASCII has none.
fn kept_or_folded<'a>(source: &str, folded: &'a str) -> Cow<'a, str> {
    if source.is_ascii() { Cow::Borrowed(folded) } else { Cow::Owned(keep_accents(source)) }
}

fn has_stem(folded: &str) -> bool {
    folded.chars().count() >= MIN_STEMMED_LETTERS
        && folded
            .chars()
            .all(|char| char.is_alphabetic() || char == '\'' || super::is_extending(char))
}

/// The languages of words in Latin letters in one text, English always among them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Detected {
    other: Option<Language>,
    /// The language is a guess.
    is_guess: bool,
}

/// Detects the language of a text: by its common words, and without any, by the letters.
pub(super) fn detect(text: &str, tokens: &[Token]) -> Detected {
    let mut counts = [0_u32; LANGUAGES.len()];
    let (mut letters, mut is_plain) = (0, true);
    for token in tokens.iter().filter(|token| token.kind == Kind::Word) {
        let source = &text[token.range.clone()];
        if !is_latin_word(source) {
            continue;
        }
        letters += source.len();
        is_plain &= source.is_ascii();
        let languages = COMMON.get(&token.term).copied().unwrap_or(0);
        for (index, count) in counts.iter_mut().enumerate() {
            *count += (languages >> index) & 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    if most > 0 && counts[0] == most {
        return Detected { other: None, is_guess: false };
    }
    let best: Vec<Language> = LANGUAGES
        .iter()
        .zip(counts)
        .filter(|(_, count)| most > 0 && *count == most)
        .map(|(language, _)| *language)
        .collect();
    match best[..] {
        [one] => Detected { other: Some(one), is_guess: most < 2 && !is_plain },
        [] if letters == 0 || (is_plain && letters < MIN_DETECTED_LETTERS) => {
            Detected { other: None, is_guess: false }
        }
        _ => {
            let lang = DETECTOR.detect(text);
            let of_lang = |lang: Lang| LANGUAGES.iter().find(|language| language.lang() == lang);
            let is_guess = lang.as_ref().is_none_or(|info| !info.is_reliable());
            let other = lang.and_then(|info| of_lang(info.lang()).copied());
            let other = if best.is_empty() {
                other
            } else {
                other.filter(|other| best.contains(other)).or(best.first().copied())
            };
            Detected {
                other: other.filter(|other| *other != Language::English),
                is_guess: is_guess && !is_plain,
            }
        }
    }
}

impl Detected {
    pub(super) fn language(self) -> Option<Language> {
        self.other
    }

    /// Returns the stems of a word that differ from it, each with the tag of its language.
    pub(super) fn stems_of(self, source: &str, folded: &str) -> Vec<(char, String)> {
        if !has_stem(folded) {
            return Vec::new();
        }
        let kept = kept_or_folded(source, folded);
        let mut stems = Vec::new();
        let mut add = |tag: char, stem: String| {
            if !stem.is_empty() && stem != folded && !stems.contains(&(tag, stem.clone())) {
                stems.push((tag, stem));
            }
        };
        if let Some(language) = Language::of_script(source) {
            add(language.tag(), language.stem(&kept, folded));
        } else if is_latin_word(source) {
            for language in [Some(Language::English), self.other].into_iter().flatten() {
                add(language.tag(), language.stem(&kept, folded));
            }
            if self.is_guess && !source.is_ascii() {
                for language in LANGUAGES.iter().filter(|language| language.is_latin()) {
                    add(ANY_TAG, language.stem(&kept, folded));
                }
            }
        }
        stems
    }
}

/// The languages in which words of a question are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageSet {
    languages: Vec<Language>,
    has_any: bool,
}

impl LanguageSet {
    /// Returns English, the language of the question, and each one for which `has` a text with the term in the project.
    pub fn new<E>(question: &str, mut has: impl FnMut(&str) -> Result<bool, E>) -> Result<Self, E> {
        let asked = detect(question, &super::cut(question)).other;
        let mut languages = vec![Language::English];
        for language in LANGUAGES.iter().copied().filter(|language| is_marked(language.tag())) {
            if asked == Some(language) || has(&super::language_term(language.tag()))? {
                languages.push(language);
            }
        }
        Ok(Self { languages, has_any: has(&super::language_term(ANY_TAG))? })
    }

    /// Returns the terms of other forms of a word, as it stands in the question.
    #[must_use]
    pub fn forms(&self, source: &str) -> Vec<String> {
        let folded = fold(source);
        let mut forms = Vec::new();
        if !has_stem(&folded) {
            return forms;
        }
        let kept = keep_accents(source);
        let mut add = |term: String| {
            if term != folded && !forms.contains(&term) {
                forms.push(term);
            }
        };
        if let Some(language) = Language::of_script(source) {
            let stem = language.stem(&kept, &folded);
            add(super::stem_term(language.tag(), &stem));
            add(stem);
        } else if is_latin_word(source) {
            for language in LANGUAGES.iter().copied().filter(|language| language.is_latin()) {
                let is_asked = self.languages.contains(&language);
                if !is_asked && !self.has_any && source.is_ascii() {
                    continue;
                }
                let stem = language.stem(&kept, &folded);
                if stem.chars().count() < 2 {
                    continue;
                }
                if is_asked {
                    add(super::stem_term(language.tag(), &stem));
                }
                if self.has_any {
                    add(super::stem_term(ANY_TAG, &stem));
                }
                if is_asked || !source.is_ascii() {
                    add(stem);
                }
            }
        }
        forms
    }
}

/// Returns the language of a question, English if nothing tells.
#[must_use]
pub fn of_question(question: &str) -> Language {
    detect(question, &super::cut(question)).other.unwrap_or(Language::English)
}
