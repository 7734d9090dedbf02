DROP TABLE differing_figures;
