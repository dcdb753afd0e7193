"""How servers find, trust and call each other; knows no room and no SQL."""
