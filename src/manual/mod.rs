//! The manual for users: one page of Markdown a topic, and the text of the mount's `README`.
//!
//! `claimfs help TOPIC` shows a page as plain text ([`plain`]), `claimfs man` writes it as a man
//! page ([`roff`]). Both work on the blocks that [`markdown`] reads.
//!
//! Does not know: the rest of claimfs.

pub mod markdown;
pub mod plain;
pub mod roff;

/// A page of the manual.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The topic, which is also the name of the file.
    pub topic: &'static str,
    /// The section of the man pages that it belongs to: 5 for files, 7 for all else.
    pub section: u8,
    /// The Markdown.
    pub text: &'static str,
}

macro_rules! pages {
    ($($topic:literal $section:literal,)*) => {
        &[$(Page {
            topic: $topic,
            section: $section,
            text: include_str!(concat!($topic, ".md")),
        },)*]
    };
}

/// All pages, in the order in which a reader wants them.
pub const PAGES: &[Page] = pages! {
    "semantics" 5,
    "waiting" 5,
    "paths" 5,
    "sessions" 7,
    "commands" 7,
    "languages" 7,
    "recipes" 7,
    "agents" 7,
    "sandboxes" 7,
    "operations" 7,
    "troubleshooting" 7,
    "security" 7,
    "limits" 7,
    "performance" 7,
    "compare" 7,
};

impl Page {
    /// The page about a topic.
    pub fn of(topic: &str) -> Option<&'static Self> {
        PAGES.iter().find(|page| page.topic == topic)
    }

    /// The first sentence after the title, which says what the page is about.
    pub fn summary(&self) -> String {
        let blocks = markdown::parse(self.text);
        let paragraph = blocks.iter().find_map(|block| match block {
            markdown::Block::Paragraph(spans) => Some(plain::inline(spans)),
            _ => None,
        });
        let paragraph = paragraph.unwrap_or_default();
        let end = paragraph.find(". ").unwrap_or(paragraph.len());
        paragraph[..end].trim_end_matches('.').to_owned()
    }
}
