"""What makes the site's search answer questions: a script that leaves out the words which tell nothing.

The search takes any word for the beginning of one, so that "how do I" finds whatever has a word with an i;
and a word that begins with a minus sign for one that must not be there. The script stands before the search's
own and changes what is sent to it.
"""

from __future__ import annotations

import json

WORDS = (
    *("an", "and", "am", "any", "are", "as", "at", "be", "by", "can", "could", "did", "do", "does", "for"),
    *("from", "get", "had", "has", "have", "how", "if", "in", "is", "it", "its", "let", "me", "my", "of"),
    *("on", "or", "our", "please", "shall", "should", "so", "than", "that", "the", "their", "them", "then"),
    *("there", "these", "they", "this", "to", "us", "want", "was", "we", "were", "what", "when", "where"),
    *("which", "who", "whose", "why", "will", "with", "would", "you", "your"),
)
"""Words of questions that every page has."""
SCRIPT = """/* A question is searched for by the words that tell something; what has quotes is left alone. */
(() => {
  const words = new Set(WORDS)
  const QUERY = 2
  const send = Worker.prototype.postMessage
  Worker.prototype.postMessage = function (message, ...more) {
    if (message?.type === QUERY && typeof message.data === "string" && !message.data.includes('"')) {
      const asked = message.data.split(/[\\s-]+/).map((each) => each.replace(/[?!]+$/, "")).filter(Boolean)
      const rest = asked.filter((each) => !words.has(each.toLowerCase()) && !/^[a-z]$/i.test(each))
      message = { ...message, data: (rest.length ? rest : asked).join(" ") }
    }
    return send.call(this, message, ...more)
  }
})()
"""


def search_words() -> str:
    """The script."""
    return SCRIPT.replace("WORDS", json.dumps(WORDS))
