"""Ways to ask: sentence frames for each kind of question, and the small noise of real users."""

from __future__ import annotations

import random

WHAT = (
    "What is {x}?", "What's {x}?", "Explain {x}.", "Can you explain {x}?", "Tell me about {x}.",
    "Define {x}.", "What does {x} mean?", "Could you tell me what {x} is?", "What is meant by {x}?",
    "I would like to know what {x} is.", "Describe {x} in a few words.", "Describe {x}.",
    "Give me a short explanation of {x}.", "How would you define {x}?", "Do you know what {x} is?",
    "Please explain {x} to me.", "Say what {x} is.", "Help me understand {x}.", "What exactly is {x}?",
    "In short, what is {x}?", "Tell me what {x} is.", "What can you tell me about {x}?",
    "Give a definition of {x}.", "Can you tell me what {x} is?", "I do not understand {x}.",
    "Explain {x} in one sentence.", "How would you explain {x}?", "Teach me what {x} is.",
    "What do you know about {x}?", "What should I know about {x}?", "Explain what {x} is.",
    "Explain to me what {x} is.", "I want to know more about {x}.", "So what is {x}?",
    "What do people mean by {x}?", "Give me a definition of {x}.", "I have a question: what is {x}?",
)
HOW = (
    "How do I {x}?", "How can I {x}?", "How to {x}?", "What is the way to {x}?", "I want to {x}.",
    "Show me how to {x}.", "How does one {x}?", "Tell me how to {x}.", "I need to {x}. How?",
    "What do I do to {x}?", "Explain how to {x}.", "How would I {x}?", "What must I do to {x}?",
    "Can you tell me how to {x}?", "Can you show me how to {x}?", "I would like to {x}.",
    "Please explain how I can {x}.", "What is the best way to {x}?", "What should I do to {x}?",
    "How could I {x}?", "Is there a way to {x}?", "What do I need to do to {x}?",
    "I am trying to {x}. What should I do?", "Help me to {x}.", "What command do I use to {x}?",
    "How do you {x}?", "What is the easiest way to {x}?", "I do not know how to {x}.",
)
CAN = (
    "Can Backplane {x}?", "Is Backplane able to {x}?", "Tell me whether Backplane can {x}.",
    "Could Backplane {x}?", "I wonder if Backplane can {x}.", "Is it true that Backplane can {x}?",
    "Is it possible for Backplane to {x}?", "Do you know if Backplane can {x}?", "Can it {x}?",
    "Can the server {x}?", "Does Backplane know how to {x}?", "Will Backplane {x}?",
    "I want to know if Backplane can {x}.", "Can I make Backplane {x}?", "Is the server able to {x}?",
    "Please tell me if Backplane can {x}.", "Could you tell me whether Backplane can {x}?",
)
FLAG = (
    "What does {x} do?", "What is {x} for?", "What does the {x} flag do?", "Explain {x}.",
    "What is the {x} flag for?", "Explain the option {x}.", "What is the use of {x}?",
    "Tell me about the flag {x}.", "What does the option {x} mean?", "What is {x}?",
    "When do I need {x}?", "What can I set with {x}?", "What happens when I use {x}?",
    "How do I use {x}?", "Describe the flag {x}.", "What is the meaning of {x}?",
    "Tell me what {x} does.", "Explain what {x} does.", "What is the option {x} good for?",
    "Why would I use {x}?", "I saw the flag {x}. What does it do?", "What does the parameter {x} do?",
)
ROUTE = (
    "What does {x} do?", "What is {x} for?", "What does the {x} endpoint do?", "Explain {x}.",
    "What is the {x} endpoint for?", "Explain the endpoint {x}.", "What is the use of {x}?",
    "Tell me about the route {x}.", "What does the route {x} return?", "What is {x}?",
    "When do I call {x}?", "What do I get from {x}?", "What happens when I call {x}?",
    "How do I use {x}?", "Describe the endpoint {x}.", "What does {x} return?",
    "Tell me what {x} does.", "Explain what {x} does.", "What is the route {x} good for?",
    "Why would I call {x}?", "What is behind {x}?", "What does the endpoint {x} answer?",
)
FRAMES = {"what": WHAT, "how": HOW, "can": CAN, "flag": FLAG, "route": ROUTE, "ask": ("{x}",)}

_OPENINGS = ("Hi, ", "Hello! ", "Hey, ", "Please tell me: ", "Quick question: ", "Question: ",
             "Hi there! ", "Good morning. ", "Excuse me, ", "One more question: ", "Okay, ")
_CLOSINGS = (" Thanks!", " Thank you.", " Please.", " Please answer.", " Thanks in advance!")


def as_typed(question: str, draw: random.Random) -> str:
    """The question as some user might type it: same words, other manners."""
    roll = draw.random()
    if roll < 0.55:
        return question
    if roll < 0.65:
        return question.rstrip("?.!")
    if roll < 0.75:
        return question[0].lower() + question[1:]
    if roll < 0.80:
        return question.lower()
    if roll < 0.85:
        return question.lower().rstrip("?.!")
    if roll < 0.95:
        return draw.choice(_OPENINGS) + question
    return question + draw.choice(_CLOSINGS)
