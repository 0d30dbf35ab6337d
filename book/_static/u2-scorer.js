// Sphinx's own scores, but the chapters come before the glossary, the reference and the rest of the back matter.
var Scorer = {
  score: ([page, , , , score]) => (page.startsWith("book/back/") ? score - 12 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
