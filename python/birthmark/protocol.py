"""What a verdict claims, what it does not, and how it is reached: in words."""

from __future__ import annotations

HYPOTHESES = {
    "prosecution": "The suspect was trained on outputs that carry the claim's mark.",
    "defence": "The suspect never saw outputs that carry the claim's mark.",
}
NOT_SAID = (
    "A verdict says that marked outputs were among what the suspect learned from. It does not say"
    " who trained it, when, or whether that was allowed. UNMARKED and UNDECIDED do not say that the"
    " suspect is independent: a mark may be too weak to be seen."
)
PROTOCOL = (
    "All chance in the p-values is that of the claim's secret key, drawn before the suspect was"
    " seen; nothing is assumed of the pictures.",
    "The calibration was measured on the owner's model before anything was published, and its hash"
    " stands in the signed claim.",
    "Statistics are summed over all pictures before anything is tested; equal pictures count once.",
    "The cosine test decides. Chips and decoys test the same in two other ways and must agree with"
    " it, or the verdict is UNDECIDED.",
    "p is multiplied by the number of hypotheses tried (Bonferroni), each scale and angle that was"
    " tried among them.",
    "The owner may have made several claims, each with a mark of its own, before anything was"
    " published, and kept the one whose mark reads best in his own model's outputs. The claim"
    " states how many (draws), and p is multiplied by that number too.",
    "An informed verdict compares the suspect with the owner's model, and with references where"
    " there are any: surrogates that the owner trained on that model's unmarked outputs. What they"
    " get wrong too is not taken for a mark. None may carry the mark or its negative, and each is"
    " read for both, but a small part of it would escape: an informed verdict takes for granted"
    " that the owner's model is the one that was served, and what the references learned from. Who"
    " doubts a reference can train another from the owner's model; what the verdict would be"
    " without them is stated.",
    "A picture that once was an output of the owner's model carries the mark through any model:"
    " what a suspect is asked must be fresh. Each input is read for the mark itself, and one that"
    " carries it voids the test.",
    "The claim's secret was committed to in the claim, so there is one key to each claim. A claim"
    " with a time stamp from before the suspect existed leaves nothing to search for. Who doubts"
    " the date may count 2^64 keys: that p is given too.",
    "Every customer's name gives a mark of its own. A verdict about one customer's mark takes it"
    " for granted that his name was fixed before the suspect was looked at. A declared trial fixes"
    " it; birthmark trace looks for all names of a list, and counts them.",
    "A declared trial fixes, before the suspect is asked, whose mark is looked for, the threshold,"
    " the number of tests counted, the inputs and the number of queries; the nonces of both parties"
    " choose the inputs.",
    "The likelihood ratio weighs all strengths of a mark alike (p has density k p^(k-1), k uniform"
    " in 0..1); an innocent suspect reaches R at most once in R cases.",
)
