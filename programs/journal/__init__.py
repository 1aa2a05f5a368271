"""The teacher's journal: answers that were paid for, kept so that none is paid for twice."""
