"""What a text must obey: from the several forms clients write it in to one that is checked.

The worker obeys it; here it is read, bounded and refused.
"""
